"""How a token without keys gets one: the tool and the command for its kind, or nothing."""

from __future__ import annotations

import os
import shlex
from enum import Enum

from replug.token.identity import TokenId


class TokenKind(Enum):
    """The kinds of tokens that are made keys on in different ways."""

    YUBIKEY = "a YubiKey's PIV application, by Yubico's module"
    PIV = "a PIV card, by OpenSC"
    SMARTCARD_HSM = "a SmartCard-HSM"
    TPM = "a TPM, by tpm2-pkcs11"
    SOFTHSM = "SoftHSM"
    OPENCRYPTOKI = "openCryptoki"
    OTHER = "anything else"


_MODULES = (
    ("libykcs11", TokenKind.YUBIKEY),
    ("libtpm2_pkcs11", TokenKind.TPM),
    ("libsofthsm2", TokenKind.SOFTHSM),
    ("libopencryptoki", TokenKind.OPENCRYPTOKI),
    ("PKCS11_API", TokenKind.OPENCRYPTOKI),
    ("libsc-hsm", TokenKind.SMARTCARD_HSM),
)
"""How the names of modules begin that have tokens of one kind only."""
_SHOWS_ITS_KEYS = (TokenKind.YUBIKEY, TokenKind.PIV, TokenKind.SMARTCARD_HSM)
"""Public keys and certificates of these are to be seen without login."""
_KEY_TYPES = {
    TokenKind.SMARTCARD_HSM: "EC:prime256v1",
    TokenKind.TPM: "EC:prime256v1",
    TokenKind.SOFTHSM: "EC:prime256v1",
    TokenKind.OPENCRYPTOKI: "rsa:2048",
}
"""The kinds whose modules make key pairs with the user's PIN, and the best type that all of a kind have."""
_YKMAN = (
    "ykman piv keys generate -a ECCP256 9a public.pem"
    " && ykman piv certificates generate -s CN=ssh 9a public.pem"
)
"""Without the certificate OpenSC does not show the key."""


def kind_of(token: TokenId, module: str) -> TokenKind:
    """The kind of a token at the module with this path, which may be one that has tokens of many kinds."""
    name = os.path.basename(os.path.realpath(module))
    for beginning, kind in _MODULES:
        if name.startswith(beginning):
            return kind
    if token.manufacturer.startswith("Yubico"):
        return TokenKind.YUBIKEY
    if token.manufacturer == "piv_II":  # OpenSC's pkcs15-piv.c
        return TokenKind.PIV
    if token.manufacturer == "www.CardContact.de" or token.model == "SmartCard-HSM":
        return TokenKind.SMARTCARD_HSM
    if token.manufacturer == "SoftHSM project":
        return TokenKind.SOFTHSM
    return TokenKind.OTHER


def without_keys(token: TokenId, module: str, *, logged_in: bool) -> str:
    """What a token is said to be that shows no key."""
    if logged_in or kind_of(token, module) in _SHOWS_ITS_KEYS:
        return "it holds no keys for ssh yet"
    return "it shows no keys without a login, and may hold none yet"


def how_to_get_a_key(token: TokenId, module: str) -> str:
    """A command that makes a key on this token, for the user to type; empty if we know none for its kind."""
    kind = kind_of(token, module)
    if kind is TokenKind.YUBIKEY:
        return _YKMAN
    if kind is TokenKind.PIV:
        return (
            f"for a YubiKey: {_YKMAN}; for other PIV cards: their maker's tool, with a certificate in slot 9A"
        )
    if kind in _KEY_TYPES:
        chosen = ["--token-label", token.label] if token.label else []
        words = ["pkcs11-tool", "--module", module, *chosen, "--login", "--keypairgen"]
        words += ["--key-type", _KEY_TYPES[kind], "--usage-sign", "--id", "01", "--label", "ssh"]
        return shlex.join(words)
    return ""
