"""Names for what failed: the function of PKCS#11 and the value it returned, as its users know them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pkcs11 import PKCS11Error

from replug.token.worker.inside.cryptoki import CallError
from replug.token.worker.inside.return_values import name_of


@contextmanager
def calling(function: str) -> Iterator[None]:
    """Note at an error that is raised meanwhile that this C_ function returned it."""
    try:
        yield
    except PKCS11Error as error:
        if not hasattr(error, "__notes__"):  # what was called in detail is known already
            name = value_name(error)
            says_more = type(error) is not PKCS11Error and str(error) not in ("", name)
            detail = f" ({error})" if says_more else ""
            error.add_note(f"{function}: {name}{detail}")
        raise


def value_name(error: PKCS11Error) -> str:
    """The CKR_ value; python-pkcs11 names its classes after them."""
    if isinstance(error, CallError):
        return error.name
    if type(error) is PKCS11Error:
        # A value that it has no class for.
        if str(error).startswith("User type invalid"):
            return "CKR_USER_TYPE_INVALID"
        unknown = re.fullmatch(r"Unmapped error code (0x[0-9a-f]+)", str(error))
        return name_of(int(unknown[1], 16)) if unknown else str(error)
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", type(error).__name__)
    name = "CKR_" + "_".join(words).upper()
    for ours, theirs in (("CANCELLED", "CANCELED"), ("RECOGNISED", "RECOGNIZED")):
        name = name.replace(ours, theirs)
    return name
