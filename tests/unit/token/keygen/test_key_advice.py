"""How a token without keys gets one: the right tool for its kind, or nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from replug.token.identity import TokenId
from replug.token.keygen.key_advice import (
    TokenKind,
    how_to_get_a_key,
    kind_of,
    makes_keys_for_its_user,
    what_then,
    without_keys,
)
from replug.token.names.uri import Uri, parse_uri

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
    if kind in (TokenKind.YUBIKEY, TokenKind.PIV):
        assert "ykman piv keys generate" in command
        assert "keygen" not in command  # OpenSC makes no PIV keys, and libykcs11 not with the PIN
        assert what_then(token, module) == "replug refresh"
        assert not makes_keys_for_its_user(token, module)
    else:
        *program, uri = shlex.split(command)
        assert program == ["replug", "keygen"]
        assert parse_uri(uri) == Uri(token=token.label)
        assert what_then(token, module) == ""
        assert makes_keys_for_its_user(token, module)


@pytest.mark.parametrize(("token", "module"), [(YUBIKEY, PROXY), (PIV, OPENSC)])
def test_the_tool_is_installed_if_it_is_missing(
    token: TokenId, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sudo apt-get install yubikey-manager && ykman piv" in how_to_get_a_key(token, module)
    (tmp_path / "ykman").touch(0o755)
    assert "install" not in how_to_get_a_key(token, module)


def test_a_token_that_no_agent_serves_is_named_with_its_module() -> None:
    command = how_to_get_a_key(SOFTHSM, "/usr/lib/libsofthsm2.so", served=False)
    assert parse_uri(shlex.split(command)[-1]) == Uri(
        token="it's mine", module_path="/usr/lib/libsofthsm2.so"
    )


@pytest.mark.parametrize(
    ("token", "uri"),
    [
        (TokenId("Maker", "Model", "77", ""), "pkcs11:serial=77"),
        (TokenId("Maker", "Model", "", ""), "pkcs11:model=Model"),
    ],
)
def test_a_token_without_a_label_is_named_otherwise(token: TokenId, uri: str) -> None:
    assert how_to_get_a_key(token, OPENSC) == f"replug keygen {uri}"


def test_what_is_hidden_is_not_said_to_be_missing() -> None:
    assert without_keys(PIV, OPENSC, logged_in=False) == "it holds no keys for ssh yet"
    assert without_keys(OTHER, OPENSC, logged_in=True) == "it holds no keys for ssh yet"
    assert without_keys(SOFTHSM, PROXY, logged_in=False) == (
        "it shows no keys without a login, and may hold none yet"
    )
