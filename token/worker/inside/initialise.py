"""C_Initialize with pReserved, which python-pkcs11 does not pass; NSS reads its settings from there."""

from __future__ import annotations

import ctypes
from typing import Any

import pkcs11
from pkcs11 import PKCS11Error, _pkcs11

_CKR_OK = 0
_CKF_OS_LOCKING_OK = 2


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_char_p),
    )


class _FunctionList(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("initialize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        ("finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
    )


class _ReservedLibrary(_pkcs11.lib):
    """The library, which calls `initialize` when it is made, and `finalize` of its own accord never."""

    reserved = b""

    def initialize(self) -> None:
        arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK, reserved=self.reserved)
        self._check("C_Initialize", _functions(self.so).initialize(ctypes.addressof(arguments)))

    def finalize(self) -> None:
        self._check("C_Finalize", _functions(self.so).finalize(None))

    @staticmethod
    def _check(function: str, result: int) -> None:
        if result != _CKR_OK:
            raise PKCS11Error(f"{function} returned {result:#x}")


def initialised(path: str, reserved: str) -> Any:
    """The module at `path` after C_Initialize, with `reserved` as pReserved unless it is empty."""
    if not reserved:
        return pkcs11.lib(path)
    kind = type(
        "ReservedLibrary", (_ReservedLibrary,), {"reserved": reserved.encode(errors="surrogateescape")}
    )
    return kind(path)


def _functions(path: str) -> _FunctionList:
    functions = ctypes.POINTER(_FunctionList)()
    result = ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(functions))
    if result != _CKR_OK:
        raise PKCS11Error(f"C_GetFunctionList returned {result:#x}")
    return functions.contents
