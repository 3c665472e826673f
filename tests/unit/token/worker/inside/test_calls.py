"""How an error of a module is named."""

from __future__ import annotations

import pkcs11
import pytest

from replug.token.worker.inside.calls import calling


def noted(error: Exception) -> list[str]:
    with pytest.raises(type(error)) as caught, calling("C_Outer"), calling("C_Login"):
        raise error
    return getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (pkcs11.GeneralError(), "C_Login: CKR_GENERAL_ERROR"),
        (pkcs11.SlotIDInvalid(), "C_Login: CKR_SLOT_ID_INVALID"),
        (pkcs11.FunctionCancelled(), "C_Login: CKR_FUNCTION_CANCELED"),
        (pkcs11.PinLenRange("too short"), "C_Login: CKR_PIN_LEN_RANGE (too short)"),
        (pkcs11.PKCS11Error("Unmapped error code 0x80000001"), "C_Login: CKR_VENDOR_DEFINED + 0x1"),
        (pkcs11.PKCS11Error("User type invalid. Should never see this."), "C_Login: CKR_USER_TYPE_INVALID"),
        (pkcs11.PKCS11Error("Unmapped error code 0x140"), "C_Login: CKR_CURVE_NOT_SUPPORTED"),
    ],
)
def test_the_function_and_what_it_returned(error: Exception, note: str) -> None:
    assert noted(error) == [note]


def test_other_errors_are_not_the_modules() -> None:
    assert noted(ValueError("mistake")) == []
