"""Names for what failed: the function of PKCS#11 and the value it returned, as its users know them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pkcs11 import PKCS11Error

from replug.token.worker.cryptoki import CallError


@contextmanager
def calling(function: str) -> Iterator[None]:
    """Note at an error that is raised meanwhile that this C_ function returned it."""
    try:
        yield
    except PKCS11Error as error:
        if not hasattr(error, "__notes__"):  # what was called in detail is known already
            name = value_name(error)
            detail = f" ({error})" if str(error) not in ("", name) else ""
            error.add_note(f"{function}: {name}{detail}")
        raise


def value_name(error: PKCS11Error) -> str:
    """The CKR_ value; python-pkcs11 names its classes after them."""
    if isinstance(error, CallError):
        return error.name
    if type(error) is PKCS11Error:
        return str(error)  # a value that it does not know
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", type(error).__name__)
    name = "CKR_" + "_".join(words).upper()
    for ours, theirs in (("CANCELLED", "CANCELED"), ("RECOGNISED", "RECOGNIZED")):
        name = name.replace(ours, theirs)
    return name
