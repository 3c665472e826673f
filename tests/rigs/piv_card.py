"""A PIV card (NIST SP 800-73-4) as a YubiKey 5 has it: all but the plastic, and it counts what is done to it.

Nothing here knows of readers: APDUs go in and come out. The PIN's state is lost whenever a real card loses
it: without power, on reset, and when an application is selected.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum

from rigs.piv_apdu import Chaining, Command, RefusedError, Status
from rigs.piv_keys import POLICIES, Algorithm, Key, PinPolicy, Slot, parse_tlv, tlv

PIN = "123456"
TRIES = 3
ATR = bytes.fromhex("3bfd1300008131fe158073c021c057597562694b657940")
"""A YubiKey 5's: by it OpenSC knows how the card behaves."""
VERSION = bytes([5, 4, 3])

PIV = bytes.fromhex("a000000308000010000100")
OTHER_APPLICATION = bytes.fromhex("a0000005272101")
"""YubiKey's OATH application: something else that another program may select."""


class Instruction(IntEnum):
    """The commands the card knows: PIV's (SP 800-73-4 part 2) and, from GET_METADATA on, Yubico's own."""

    SELECT = 0xA4
    VERIFY = 0x20
    GET_DATA = 0xCB
    GENERAL_AUTHENTICATE = 0x87
    GET_METADATA = 0xF7
    GET_SERIAL = 0xF8
    GET_VERSION = 0xFD


_LONGEST_HISTORY = 1000
_PIN_REFERENCE = 0x80
_PUK_REFERENCE = 0x81
_PIN_LENGTH = 8
_DYNAMIC_TEMPLATE, _CHALLENGE, _RESPONSE = 0x7C, 0x81, 0x82
_CERTIFICATES = {
    Slot.AUTHENTICATION: 0x5FC105,
    Slot.SIGNATURE: 0x5FC10A,
    Slot.KEY_MANAGEMENT: 0x5FC10B,
    Slot.CARD_AUTHENTICATION: 0x5FC101,
}
_DEFAULT_KEYS = {
    Slot.AUTHENTICATION: Algorithm.P256,
    Slot.SIGNATURE: Algorithm.P384,
    Slot.CARD_AUTHENTICATION: Algorithm.RSA_2048,
}


class PowerLostError(Exception):
    """The card lost its power in the middle of a command; there is no answer."""


class Card:
    """One card, in a reader or in the drawer.

    A test may set the public attributes at any time; the counters go up only.
    """

    def __init__(
        self, serial: int = 5001234, keys: Mapping[Slot, Algorithm | Key] = _DEFAULT_KEYS, pin: str = PIN
    ) -> None:
        """A `Key` in `keys` is one that another card may hold too; an `Algorithm` stands for a new one."""
        self.serial = serial
        self.keys = {
            slot: key if isinstance(key, Key) else Key.new(key, f"card {serial} slot {slot:x}")
            for slot, key in keys.items()
        }
        self.pin = pin
        self.tries_left = TRIES
        self.needs_touch = False
        """Signatures wait for `touch()`, and are refused after `touch_timeout` seconds without one."""
        self.touch_timeout = 15.0
        self.delay = 0.0
        """How long a signature takes, in seconds."""
        self.latency = 0.0
        """How long every command takes, in seconds; 0.015 is usual."""
        self.refuses = False
        """Every signature is refused with 6982, as if the PIN had not been verified."""
        self.refuses_once: int | None = None
        """The status word by which the next signature is refused, and no other."""

        self.commands = 0
        self.history: deque[tuple[float, str]] = deque(maxlen=_LONGEST_HISTORY)
        """The last commands: when each began, by the clock, and what it was."""
        self.verifies = 0
        """VERIFY commands that carried a PIN."""
        self.wrong_pins = 0
        self.signatures = 0
        self.signatures_begun = 0

        self._objects = _objects(serial, self.keys)
        self._changed = threading.Condition()
        self._chaining = Chaining(self._execute)
        self._power_cuts = 0
        self._touches = 0
        self._forget()

    def power_off(self) -> None:
        """Takes the power away, also in the middle of a command; the PIN's state is lost."""
        with self._changed:
            self._power_cuts += 1
            self._forget()
            self._changed.notify_all()

    reset = power_off

    def answer(self, apdu: bytes) -> bytes:
        """The response APDU to a command APDU; PowerLostError."""
        with self._changed:
            self._take(self.latency)
            return self._chaining.answer(apdu)

    def touch(self) -> None:
        """Touches the card: signatures that wait for it go on."""
        with self._changed:
            self._touches += 1
            self._changed.notify_all()

    def await_signature(self, number: int, within: float = 10) -> None:
        """Waits until the signature with this number (the card's first is 1) is under way, at least."""
        with self._changed:
            begun = self._changed.wait_for(lambda: self.signatures_begun >= number, within)
        assert begun, f"signature {number} was not begun within {within} s"

    @property
    def pin_verified(self) -> bool:
        """Whether the PIN is good for slot 9a now."""
        return self._pin_verified

    def _forget(self) -> None:
        self._chaining.reset()
        self._selected = False
        self._pin_verified = False
        self._pin_just_verified = False

    def _execute(self, command: Command) -> bytes:
        self.commands += 1
        self.history.append((time.time() - self.latency, _name(command)))
        # "PIN always" means a VERIFY immediately before.
        just_verified, self._pin_just_verified = self._pin_just_verified, False
        if command.instruction == Instruction.SELECT:
            return self._select(command)
        if not self._selected:
            raise RefusedError(Status.UNKNOWN_INSTRUCTION)
        match command.instruction:
            case Instruction.VERIFY:
                return self._verify(command)
            case Instruction.GET_DATA:
                return self._get_data(command)
            case Instruction.GENERAL_AUTHENTICATE:
                return self._general_authenticate(command, just_verified)
            case Instruction.GET_VERSION:
                return VERSION
            case Instruction.GET_SERIAL:
                return self.serial.to_bytes(4)
            case Instruction.GET_METADATA:
                return self._get_metadata(command)
            case _:
                raise RefusedError(Status.UNKNOWN_INSTRUCTION)

    def _select(self, command: Command) -> bytes:
        if command.p1 != 0x04:
            raise RefusedError(Status.WRONG_P1_P2)
        if command.data == OTHER_APPLICATION:
            self._forget()
            return b""
        if len(command.data) < 5 or not PIV.startswith(command.data):
            raise RefusedError(Status.NOT_FOUND)
        self._forget()
        self._selected = True
        return tlv(0x61, tlv(0x4F, PIV[5:]), tlv(0x79, tlv(0x4F, PIV[:5])))

    def _verify(self, command: Command) -> bytes:
        if (command.p1, command.p2) != (0, _PIN_REFERENCE):
            raise RefusedError(Status.WRONG_P1_P2)
        if not command.data:
            if self._pin_verified:
                return b""
            raise RefusedError(self._tries_status())
        self.verifies += 1
        if self.tries_left == 0:
            raise RefusedError(Status.BLOCKED)
        if len(command.data) != _PIN_LENGTH:
            raise RefusedError(Status.WRONG_DATA)
        if command.data != self.pin.encode().ljust(_PIN_LENGTH, b"\xff"):
            self.wrong_pins += 1
            self.tries_left -= 1
            self._pin_verified = False
            raise RefusedError(Status.TRIES_LEFT + self.tries_left)
        self.tries_left = TRIES
        self._pin_verified = self._pin_just_verified = True
        return b""

    def _tries_status(self) -> int:
        return Status.TRIES_LEFT + self.tries_left if self.tries_left else Status.BLOCKED

    def _get_data(self, command: Command) -> bytes:
        if (command.p1, command.p2) != (0x3F, 0xFF):
            raise RefusedError(Status.WRONG_P1_P2)
        tag = int.from_bytes(parse_tlv(command.data).get(0x5C, b""))
        if tag not in self._objects:
            raise RefusedError(Status.NOT_FOUND)
        return self._objects[tag]

    def _general_authenticate(self, command: Command, just_verified: bool) -> bytes:
        key, policy = self._key(command.p2)
        template = parse_tlv(parse_tlv(command.data).get(_DYNAMIC_TEMPLATE, b""))
        if command.p1 != key.algorithm or template.get(_RESPONSE) != b"" or _CHALLENGE not in template:
            raise RefusedError(Status.WRONG_DATA)
        allowed = {
            PinPolicy.NEVER: True,
            PinPolicy.ONCE: self._pin_verified,
            PinPolicy.ALWAYS: just_verified,
        }[policy]
        self.signatures_begun += 1
        self._changed.notify_all()
        status, self.refuses_once = self.refuses_once, None
        if status is not None:
            raise RefusedError(status)
        if not allowed or self.refuses or not self._touched_in_time():
            raise RefusedError(Status.SECURITY_NOT_SATISFIED)
        signature = key.sign(template[_CHALLENGE])
        self.signatures += 1
        return tlv(_DYNAMIC_TEMPLATE, tlv(_RESPONSE, signature))

    def _touched_in_time(self) -> bool:
        """Waits as long as a signature takes, and for a touch if one is needed."""
        touches = self._touches
        self._take(self.delay)
        return not self.needs_touch or self._take(self.touch_timeout, lambda: self._touches != touches)

    def _take(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Is busy for so long, or until `done`; whether it was."""
        power_cuts = self._power_cuts
        was_done = self._changed.wait_for(lambda: self._power_cuts != power_cuts or done(), seconds)
        if self._power_cuts != power_cuts:
            raise PowerLostError
        return was_done

    def _get_metadata(self, command: Command) -> bytes:
        """Yubico's GET METADATA, by which libykcs11 learns of tries and keys without a try or a signature."""
        if command.p2 in (_PIN_REFERENCE, _PUK_REFERENCE):
            left = self.tries_left if command.p2 == _PIN_REFERENCE else TRIES
            return tlv(0x01, b"\xff") + tlv(0x05, b"\0") + tlv(0x06, bytes([TRIES, left]))
        key, policy = self._key(command.p2)
        touch_policy = 2 if self.needs_touch else 1
        return (
            tlv(0x01, bytes([key.algorithm]))
            + tlv(0x02, bytes([policy, touch_policy]))
            + tlv(0x03, b"\x01")
            + tlv(0x04, key.metadata)
        )

    def _key(self, reference: int) -> tuple[Key, PinPolicy]:
        try:
            slot = Slot(reference)
            return self.keys[slot], POLICIES[slot]
        except (ValueError, KeyError):
            raise RefusedError(Status.NO_REFERENCE_DATA) from None


def _name(command: Command) -> str:
    """What the command is, without what it sends."""
    known = command.instruction in list(Instruction)
    name = Instruction(command.instruction).name if known else f"{command.instruction:02x}"
    if command.instruction == Instruction.GET_DATA:
        return f"{name} {parse_tlv(command.data).get(0x5C, b'').hex()}"
    return f"{name} {command.p1:02x}{command.p2:02x}{' with PIN' if _carries_pin(command) else ''}"


def _carries_pin(command: Command) -> bool:
    return command.instruction == Instruction.VERIFY and bool(command.data)


def _objects(serial: int, keys: Mapping[Slot, Key]) -> dict[int, bytes]:
    """The data objects by their tags (SP 800-73-4 part 1 section 3); OpenSC's serial is the CHUID's GUID."""
    guid = b"virtual card" + serial.to_bytes(4)
    fasc_n = bytes.fromhex("d4e739da739ced39ce739d836858210842108421c84210c3eb")
    chuid = tlv(0x30, fasc_n) + tlv(0x34, guid) + tlv(0x35, b"20991231") + tlv(0x3E) + tlv(0xFE)
    capabilities = tlv(0xF0, bytes.fromhex("a000000116ff02") + guid[2:]) + bytes.fromhex(
        "f10121f20121f300f40100f50110f600f700fa00fb00fc00fd00fe00"
    )
    objects = {
        0x5FC102: tlv(0x53, chuid),
        0x5FC107: tlv(0x53, capabilities),
        0x5FC10C: tlv(0x53, tlv(0xC1, b"\0"), tlv(0xC2, b"\0"), tlv(0xFE)),  # key history: none
        0x7E: tlv(0x7E, tlv(0x4F, PIV), tlv(0x5F2F, b"\x40\0")),  # discovery: the application's PIN
    }
    for slot, key in keys.items():
        certificate = tlv(0x70, key.certificate) + tlv(0x71, b"\0") + tlv(0xFE)
        objects[_CERTIFICATES[slot]] = tlv(0x53, certificate)
    return objects
