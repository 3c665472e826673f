"""How a token without keys gets one: the right tool for its kind, or nothing."""

from __future__ import annotations

import shlex

import pytest

from replug.token.identity import TokenId
from replug.token.key_advice import TokenKind, how_to_get_a_key, kind_of, without_keys

OPENSC = "/usr/lib/opensc-pkcs11.so"
PROXY = "/usr/lib/p11-kit-proxy.so"
YUBIKEY = TokenId("Yubico (www.yubico.com)", "YubiKey YK5", "5001234", "YubiKey PIV #5001234")
PIV = TokenId("piv_II", "PKCS#15 emulated", "0", "PIV_II")
HSM = TokenId("www.CardContact.de", "PKCS#15 emulated", "DECC1", "SmartCard-HSM (UserPIN)")
SOFTHSM = TokenId("SoftHSM project", "SoftHSM v2", "1", "it's mine")
TPM = TokenId("IBM", "SW   TPM", "0", "tpm")
OCK = TokenId("IBM", "Soft", "1", "ock")
OTHER = TokenId("Maker", "Model", "1", "other")

KINDS = [
    (YUBIKEY, "/usr/lib/libykcs11.so", TokenKind.YUBIKEY),
    (YUBIKEY, PROXY, TokenKind.YUBIKEY),
    (PIV, OPENSC, TokenKind.PIV),
    (HSM, OPENSC, TokenKind.SMARTCARD_HSM),
    (TokenId("CardContact", "SmartCard-HSM", "1", "x"), PROXY, TokenKind.SMARTCARD_HSM),
    (TPM, "/usr/lib/libtpm2_pkcs11.so.0.0.0", TokenKind.TPM),
    (SOFTHSM, PROXY, TokenKind.SOFTHSM),
    (OCK, "/usr/lib/libopencryptoki.so.0", TokenKind.OPENCRYPTOKI),
    (OTHER, OPENSC, TokenKind.OTHER),
]


@pytest.mark.parametrize(("token", "module", "kind"), KINDS)
def test_the_kind_is_known_by_module_or_maker(token: TokenId, module: str, kind: TokenKind) -> None:
    assert kind_of(token, module) is kind


@pytest.mark.parametrize(("token", "module", "kind"), KINDS)
def test_the_command_is_for_this_token(token: TokenId, module: str, kind: TokenKind) -> None:
    command = how_to_get_a_key(token, module)
    match kind:
        case TokenKind.OTHER:
            assert command == ""
        case TokenKind.YUBIKEY | TokenKind.PIV:
            assert "ykman piv keys generate" in command
            assert "pkcs11-tool" not in command  # OpenSC makes no PIV keys, and libykcs11 not with the PIN
        case _:
            words = shlex.split(command)
            assert words[:5] == ["pkcs11-tool", "--module", module, "--token-label", token.label]
            kind_of_key = "rsa:2048" if kind is TokenKind.OPENCRYPTOKI else "EC:prime256v1"
            assert kind_of_key in words


def test_what_is_hidden_is_not_said_to_be_missing() -> None:
    assert without_keys(PIV, OPENSC, logged_in=False) == "it holds no keys for ssh yet"
    assert without_keys(OTHER, OPENSC, logged_in=True) == "it holds no keys for ssh yet"
    assert without_keys(SOFTHSM, PROXY, logged_in=False) == (
        "it shows no keys without a login, and may hold none yet"
    )
