"""How a token without keys gets one: the tool and the command for its kind."""

from __future__ import annotations

import os
import shlex
import shutil
from enum import Enum

from replug.token.identity import TokenId
from replug.token.names.uri import Uri


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
_YKMAN = (
    "ykman piv keys generate -a ECCP256 9a public.pem"
    " && ykman piv certificates generate -s CN=ssh 9a public.pem"
)
"""Without the certificate OpenSC does not show the key."""
_INSTALL_YKMAN = "sudo apt-get install yubikey-manager"


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


def makes_keys_for_its_user(token: TokenId, module: str) -> bool:
    """Whether `replug keygen` is to try: its module may make key pairs with the user's PIN.

    OpenSC makes none on PIV cards, and Yubico's module wants the management key.
    """
    return kind_of(token, module) not in (TokenKind.YUBIKEY, TokenKind.PIV)


def how_to_get_a_key(token: TokenId, module: str, *, served: bool = True) -> str:
    """A command that makes a key on this token, for the user to type.

    `served` if an agent that runs has it, which then tells `replug keygen` where its module is.
    """
    kind = kind_of(token, module)
    ykman = _YKMAN if shutil.which("ykman") else f"{_INSTALL_YKMAN} && {_YKMAN}"
    if kind is TokenKind.YUBIKEY:
        return ykman
    if kind is TokenKind.PIV:
        return (
            f"for a YubiKey: {ykman}; for other PIV cards: their maker's tool, with a certificate in slot 9A"
        )
    uri = Uri(
        token=token.label or None,
        serial=None if token.label else token.serial or None,
        model=None if token.label or token.serial else token.model,
        module_path=None if served else module,
    )
    return shlex.join(["replug", "keygen", str(uri)])


def what_then(token: TokenId, module: str) -> str:
    """The command after that one, if the agent does not know of the new key otherwise."""
    return "" if makes_keys_for_its_user(token, module) else "replug refresh"
