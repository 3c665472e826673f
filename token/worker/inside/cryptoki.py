"""Functions of PKCS#11 on an open session, called without python-pkcs11.

That library loads the module, lists slots and opens sessions. On a session it asks too much: it reads ten
attributes of every object that it finds, logs in only while it opens another session, which some modules
refuse, and asks C_Sign for a length first, which some take for the request. The calls here are those that
OpenSSH's ssh-pkcs11.c makes.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_ubyte, c_ulong, c_void_p
from enum import IntEnum
from typing import Any

from pkcs11 import Attribute, PKCS11Error

from replug.token.worker.inside.return_values import GONE, name_of

_UNAVAILABLE = c_ulong(-1).value
_ROOM = 4099
"""Bytes for one attribute at the first try. No attribute has this length, so one that still has it after a
failed call was not filled in."""
_MOST_ROOM = 2 * 1024 * 1024
_BATCH = 64  # handles from one C_FindObjects
_TOO_SMALL = 0x150
_MOST_SLOTS = 128


class User(IntEnum):
    """CKU_*: what a login is for."""

    ORDINARY = 1
    CONTEXT_SPECIFIC = 2


class CallError(PKCS11Error):
    """A function returned something else than CKR_OK."""

    def __init__(self, function: str, value: int) -> None:
        self.value = value
        self.name = name_of(value)
        super().__init__(self.name)
        self.add_note(f"{function}: {self.name}")


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST, up to the last function that is called here."""

    _fields_ = (
        ("version", c_ubyte * 2),
        *(
            (name, c_void_p)
            for name in (  # noqa: SIM905 - a list would be a page
                "C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo "
                "C_GetTokenInfo C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN "
                "C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo C_GetOperationState "
                "C_SetOperationState C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject "
                "C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects "
                "C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit "
                "C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate C_DigestKey "
                "C_DigestFinal C_SignInit C_Sign"
            ).split()
        ),
    )


class _Attribute(ctypes.Structure):
    _fields_ = (("type", c_ulong), ("value", c_void_p), ("length", c_ulong))


class _Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", c_ulong), ("parameter", c_void_p), ("parameter_length", c_ulong))


_PROTOTYPES = {
    name: ctypes.CFUNCTYPE(c_ulong, *parameters)
    for name, parameters in {
        "C_GetSlotList": (c_ubyte, c_void_p, c_void_p),
        "C_Login": (c_ulong, c_ulong, c_void_p, c_ulong),
        "C_Logout": (c_ulong,),
        "C_GetAttributeValue": (c_ulong, c_ulong, c_void_p, c_ulong),
        "C_FindObjectsInit": (c_ulong, c_void_p, c_ulong),
        "C_FindObjects": (c_ulong, c_void_p, c_ulong, c_void_p),
        "C_FindObjectsFinal": (c_ulong,),
        "C_SignInit": (c_ulong, c_void_p, c_ulong),
        "C_Sign": (c_ulong, c_void_p, c_ulong, c_void_p, c_void_p),
    }.items()
}


def encode_number(value: int) -> bytes:
    """A CK_ULONG as an attribute's value."""
    return value.to_bytes(ctypes.sizeof(c_ulong), sys.byteorder)


def decode_number(value: bytes) -> int:
    """The CK_ULONG that is an attribute's value."""
    return int.from_bytes(value, sys.byteorder)


_OF_EVERY_OBJECT = (Attribute.KEY_TYPE, Attribute.CERTIFICATE_TYPE)
"""Attributes that none lacks. NSS tells them neither together with others that are lacking nor into more room
than they need: it says that the object has none."""


class _Room:
    """A template with room for the values of some attributes, used again for every object."""

    def __init__(self, types: Sequence[int]) -> None:
        self._types = types
        self._buffer = ctypes.create_string_buffer(_ROOM * len(types))
        begin = ctypes.addressof(self._buffer)
        self._begins = [begin + _ROOM * number for number in range(len(types))]
        attributes = [
            number for kind, begin in zip(types, self._begins, strict=True) for number in (kind, begin, _ROOM)
        ]
        # As plain numbers: members of a structure are slow, and this is done for every object.
        self._empty = (c_ulong * len(attributes))(*attributes)
        self.template = (c_ulong * len(attributes))()

    def empty(self) -> None:
        """Make it ready for another object."""
        ctypes.memmove(self.template, self._empty, ctypes.sizeof(self._empty))

    def lengths(self) -> list[int]:
        """What the module has said of each attribute."""
        return self.template[2::3]

    def value(self, number: int, length: int) -> bytes:
        """The attribute with this number."""
        return ctypes.string_at(self._begins[number], length)


class Cryptoki:
    """The functions of one loaded module."""

    def __init__(self, library: ctypes.CDLL, loaded: Any) -> None:
        """`library` is the module, `loaded` the same as python-pkcs11 loaded and initialised it."""
        functions = _FunctionList.from_address(_function_list(library, loaded))
        self._functions = {
            name: prototype(getattr(functions, name)) for name, prototype in _PROTOTYPES.items()
        }
        self._rooms: dict[tuple[int, ...], _Room] = {}

    def _call(self, function: str, *arguments: Any) -> None:
        value = self._functions[function](*arguments)
        if value:
            raise CallError(function, value)

    def slots_with_token(self) -> list[int]:
        """C_GetSlotList. Asking for the number first is the only call by which libykcs11 notices a change."""
        count = c_ulong(0)
        self._call("C_GetSlotList", True, None, byref(count))
        if count.value == 0:
            return []
        # One more may have come since.
        count.value = min(count.value, _MOST_SLOTS) + 1
        slots = (c_ulong * count.value)()
        self._call("C_GetSlotList", True, slots, byref(count))
        return slots[: min(count.value, len(slots))]

    def log_in(self, session: int, user: User, pin: bytearray | None) -> None:
        """C_Login; None is the token's keypad. The PIN is not copied."""
        if pin is None:
            self._call("C_Login", session, user, None, 0)
        else:
            self._call("C_Login", session, user, (c_ubyte * len(pin)).from_buffer(pin), len(pin))

    def log_out(self, session: int) -> None:
        """C_Logout."""
        self._call("C_Logout", session)

    def find(self, session: int, most: int, wanted: Mapping[int, bytes]) -> list[int]:
        """The handles of at most `most` objects that have the `wanted` attributes.

        The search ends before any attribute is read: some modules allow one operation at a time.
        """
        values = [ctypes.create_string_buffer(value, len(value)) for value in wanted.values()]
        template = (_Attribute * len(wanted))()
        for attribute, kind, value in zip(template, wanted, values, strict=True):
            attribute.type, attribute.value, attribute.length = kind, ctypes.addressof(value), len(value)
        self._call("C_FindObjectsInit", session, template, len(wanted))
        found: list[int] = []
        batch = min(_BATCH, most)
        handles, count = (c_ulong * batch)(), c_ulong(1)
        while count.value and len(found) < most:
            self._call("C_FindObjects", session, handles, batch, byref(count))
            found += handles[: min(count.value, batch)]
        self._call("C_FindObjectsFinal", session)
        return found[:most]

    def read(self, session: int, handle: int, types: tuple[int, ...]) -> dict[int, bytes]:
        """Those of the attributes that the object has, by one C_GetAttributeValue if they fit.

        Modules answer for attributes that they do not know with an error of their own choice, and some then
        fill in nothing: what was not filled in is read by itself.
        """
        if types not in self._rooms:
            self._rooms[types] = _Room(types)
        room = self._rooms[types]
        room.empty()
        value = self._functions["C_GetAttributeValue"](session, handle, room.template, len(types))
        _refuse_if_gone(value)
        read: dict[int, bytes] = {}
        for number, (kind, length) in enumerate(zip(types, room.lengths(), strict=True)):
            if length < _ROOM or (value == 0 and length == _ROOM):
                read[kind] = room.value(number, length)
            elif value != 0 and (length != _UNAVAILABLE or value == _TOO_SMALL or kind in _OF_EVERY_OBJECT):
                alone = self._read_alone(session, handle, kind)
                if alone is not None:
                    read[kind] = alone
        return read

    def _read_alone(self, session: int, handle: int, kind: int) -> bytes | None:
        call = self._functions["C_GetAttributeValue"]
        attribute = _Attribute(kind, None, 0)
        value = call(session, handle, byref(attribute), 1)
        _refuse_if_gone(value)
        if value or attribute.length > _MOST_ROOM:
            return None
        buffer = ctypes.create_string_buffer(attribute.length)
        attribute.value = ctypes.addressof(buffer)
        room = attribute.length
        value = call(session, handle, byref(attribute), 1)
        _refuse_if_gone(value)
        return None if value or attribute.length > room else buffer.raw[: attribute.length]

    def begin_signature(self, session: int, mechanism: int, handle: int) -> None:
        """C_SignInit, with a mechanism that has no parameter."""
        self._call("C_SignInit", session, byref(_Mechanism(mechanism, None, 0)), handle)

    def sign(self, session: int, data: bytes, size: int) -> bytes:
        """C_Sign, with room for a signature of `size` bytes at once."""
        signature, length = ctypes.create_string_buffer(size), c_ulong(size)
        self._call("C_Sign", session, ctypes.c_char_p(data), len(data), signature, byref(length))
        return signature.raw[: min(length.value, size)]


def _refuse_if_gone(value: int) -> None:
    """Raise CallError if the session or the token is gone, which says nothing about an attribute."""
    if value in GONE:
        raise CallError("C_GetAttributeValue", value)


def _function_list(library: ctypes.CDLL, loaded: Any) -> int:
    """The address of the list of functions that python-pkcs11 uses, to use the same sessions.

    Most modules have one. p11-kit's proxy gives each caller another, with sessions of its own. There the
    pointer in python-pkcs11's object is read: it is the first member of `HasFuncList` (_pkcs11.pyx of 0.10).
    """
    lists = [c_void_p(), c_void_p()]
    for one in lists:
        library.C_GetFunctionList.argtypes = [POINTER(c_void_p)]
        library.C_GetFunctionList.restype = c_ulong
        value = library.C_GetFunctionList(byref(one))
        if value or not one.value:
            raise CallError("C_GetFunctionList", value)
    first, second = (one.value for one in lists)
    if first is not None and first == second:
        return first
    [kind] = [kind for kind in type(loaded).__mro__ if kind.__name__ == "HasFuncList"]
    if kind.__basicsize__ != object.__basicsize__ + 3 * ctypes.sizeof(c_void_p):
        raise CallError("C_GetFunctionList", value)
    address = c_void_p.from_address(id(loaded) + object.__basicsize__).value
    assert address is not None
    return address
