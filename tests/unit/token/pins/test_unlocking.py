"""The advice for a locked PIN."""

from __future__ import annotations

import pytest

from replug.token.identity import TokenId
from replug.token.pins.unlocking import how_to_unlock


@pytest.mark.parametrize(
    ("module", "manufacturer", "model", "words"),
    [
        ("/usr/lib/opensc-pkcs11.so", "piv_II", "PKCS#15 emulated", "with the PUK"),
        ("/usr/lib/libykcs11.so.2.2.0", "Yubico (www.yubico.com)", "YubiKey YK5", "with the PUK"),
        ("/usr/lib/opensc-pkcs11.so", "www.CardContact.de", "PKCS#15 emulated", "opensc-pkcs11.so --login"),
        ("/usr/lib/libtpm2_pkcs11.so.1.9.0", "IBM", "SW   TPM", "--clear-lockout"),
        ("/usr/lib/libopencryptoki.so", "IBM", "SoftTok", "libopencryptoki.so --login --login-type so"),
    ],
)
def test_it_fits_the_token(module: str, manufacturer: str, model: str, words: str) -> None:
    advice = how_to_unlock(module, TokenId(manufacturer, model, "1", "work"))

    assert words in advice
    assert ("PUK" in advice) == ("PUK" in words)
