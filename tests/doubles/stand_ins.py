"""Stand-ins for what the unit tests do without: workers with their tokens, and the person at a prompt."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from doubles.fork_servers import RunningForkServer

from replug.agent.clients.waiting import ClientLoop, Waiting
from replug.protocol.keys import Curve, EcdsaPublicKey, Ed25519PublicKey, PublicKey, RsaPublicKey
from replug.token.boottime import boottime
from replug.token.errors import Verdict, WorkerLostError, WorkerRefusedError
from replug.token.identity import TokenFlag, TokenId, TokenInfo
from replug.token.keys import TokenKey, read_keys
from replug.token.names.load_arguments import PLAIN, LoadArguments
from replug.token.pins.pin import Pin
from replug.token.prompts.request import ConfirmRequest, PinRequest
from replug.token.prompts.restraint import Restraint
from replug.token.prompts.turns import QuestionTurns
from replug.token.worker.client import Deadlines, LoggedIn, Opened, RawSignature, WorkerClient
from replug.token.worker.client import Slots as ListedSlots
from replug.token.worker.forking import Forked
from replug.token.worker.frames import Header

T = TypeVar("T")

PIN = b"123456"
WRONG_PIN = b"654321"
WITH_PIN = TokenFlag.TOKEN_INITIALIZED | TokenFlag.USER_PIN_INITIALIZED | TokenFlag.LOGIN_REQUIRED
WITHOUT_PIN = TokenFlag.TOKEN_INITIALIZED

_P256 = bytes.fromhex("06082a8648ce3d030107")
_ED25519 = bytes.fromhex("06032b6570")


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns; a test that waits for what never comes fails after 20 seconds."""
    with asyncio.Runner(loop_factory=ClientLoop) as runner:
        return runner.run(asyncio.wait_for(main, 20))


def waiting() -> Waiting:
    """What the running loop waits with."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClientLoop)
    return loop.waiting


async def settle() -> None:
    """Let everything that can run now do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def ended(pid: int) -> None:
    """Wait until the process has ended."""
    try:
        notice = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(notice, over.set)
    async with asyncio.timeout(10):
        await over.wait()
    asyncio.get_running_loop().remove_reader(notice)
    os.close(notice)


async def reaped(worker: WorkerClient) -> None:
    """Wait until the process has ended and the client knows it."""
    await ended(worker.pid)
    async with asyncio.timeout(10):
        while not has_been_reaped(worker.pid):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.001)
    await settle()  # the loop may not have told the client yet


def has_been_reaped(pid: int) -> bool:
    """Whether a process that has ended is not even a zombie any more."""
    return not os.path.exists(f"/proc/{pid}")


class Key:
    """A key pair on a token; `kind` is ed25519, p256, rsa, and for hosts p384 and p521 too."""

    def __init__(
        self, label: str = "", kind: str = "ed25519", *, signs: bool = True, always_authenticate: bool = False
    ) -> None:
        self.label = label
        self.signs = signs
        self.always_authenticate = always_authenticate
        self.private: Any = {
            "ed25519": ed25519.Ed25519PrivateKey.generate,
            "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
        }[kind]()

    @property
    def public(self) -> PublicKey:
        public = self.private.public_key()
        if isinstance(public, ed25519.Ed25519PublicKey):
            return Ed25519PublicKey(public.public_bytes_raw())
        if isinstance(public, ec.EllipticCurvePublicKey):
            point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return EcdsaPublicKey(Curve(f"nistp{public.curve.key_size}"), point)
        numbers = public.public_numbers()
        return RsaPublicKey(numbers.e, numbers.n)

    @property
    def blob(self) -> bytes:
        return self.public.encode()

    @property
    def reference(self) -> str:
        return hashlib.sha256(self.blob).hexdigest()

    def record(self, *, private_visible: bool = True) -> Header:
        """What a worker says of it; before login a token hides the private half."""
        match self.public:
            case Ed25519PublicKey(point):
                kind, material = "edwards", [_ED25519, point]
            case EcdsaPublicKey(_, point):
                kind, material = "ec", [_P256, point]
            case RsaPublicKey(e, n):
                kind, material = "rsa", [n.to_bytes(256, "big"), e.to_bytes(3, "big")]
        return {
            "kind": kind,
            "material": [part.hex() for part in material],
            "id": "01",
            "label": self.label,
            "reference": self.reference,
            "signs": private_visible and self.signs,
            "always_authenticate": private_visible and self.always_authenticate,
            "mechanism": True,
        }

    def token_key(self) -> TokenKey:
        """As the agent holds it after login."""
        return read_keys([self.record()])[self.blob]

    def sign(self, mechanism: str, data: bytes) -> bytes:
        """C_Sign by this mechanism, in PKCS#11's raw form."""
        match mechanism:
            case "EDDSA":
                return bytes(self.private.sign(data))
            case "ECDSA" | "ECDSA_SHA256":
                digest = data if mechanism == "ECDSA" else hashlib.sha256(data).digest()
                r, s = decode_dss_signature(self.private.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")
            case "RSA_PKCS":
                numbers = self.private.private_numbers()
                padded = b"\0\1" + (253 - len(data)) * b"\xff" + b"\0" + data
                value: int = pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n)
                return value.to_bytes(256, "big")
        raise AssertionError(f"no test needs {mechanism}")


class StandInToken:
    """A token in a slot: what it holds, what it says of itself, and which PIN it takes."""

    def __init__(
        self,
        *keys: Key,
        label: str = "work",
        serial: str = "1",
        flags: TokenFlag = WITH_PIN,
        pin: bytes = PIN,
    ) -> None:
        self.identity = TokenId("Maker", "Model", serial, label)
        self.keys = list(keys)
        self.flags = flags
        self.pin = PIN
        self.public_hidden = False
        """Whether even the public keys show only after login."""

    def records(self, *, logged_in: bool) -> list[Header]:
        visible = logged_in or TokenFlag.LOGIN_REQUIRED not in self.flags
        if self.public_hidden and not visible:
            return []
        return [key.record(private_visible=visible) for key in self.keys]


@dataclass
class Gate:
    """Holds a worker inside one operation."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Call:
    """One request a worker got: the `pin` it was sent (None: none, which at login means the keypad)."""

    worker: int
    operation: str
    pin: bytes | None = None


class Slots:
    """A machine with one PKCS#11 module: its tokens, the workers that ran, what they were asked."""

    def __init__(self, *tokens: StandInToken) -> None:
        self.tokens = list(tokens)
        self.processes: list[StandInWorker] = []
        """All that were started, also those that were never given the module."""
        self.fork_server = StandInForkServer()
        self.workers: list[StandInWorker] = []
        """Those that loaded the module, or were about to."""
        self.calls: list[Call] = []
        self.removable = True
        """Whether tokens can be removed from the slots."""
        self.uses_pcscd = False
        self.refused_pins = 0
        self.slot_numbers: dict[int, int] = {}
        """By the id of their token, where it is not that."""
        self._faults: dict[str, list[Exception | Gate]] = {}

    def start_worker(self, deadlines: Deadlines, _process: object = None) -> StandInWorker:
        """What a starter calls instead of `WorkerClient`."""
        worker = StandInWorker(self, deadlines)
        self.processes.append(worker)
        return worker

    def number_of(self, token: StandInToken) -> int:
        """The number of the slot that a token is in."""
        return self.slot_numbers.get(id(token), id(token))

    @staticmethod
    def reader_of(token: StandInToken) -> str:
        """The reader that a token is in."""
        return f"Reader of {token.identity.serial}"

    def fail_next(self, operation: str, *faults: Exception | Gate) -> None:
        """What happens in the next calls of `operation`, one each; WorkerLostError ends the worker."""
        self._faults.setdefault(operation, []).extend(faults)

    def hold_next(self, operation: str) -> Gate:
        """Hold the next call of `operation` until the gate opens; then it goes on as usual."""
        gate = Gate()
        self.fail_next(operation, gate)
        return gate

    @property
    def operations(self) -> list[str]:
        return [call.operation for call in self.calls]

    @property
    def logins(self) -> list[bytes | None]:
        """The PIN of each C_Login(CKU_USER), None for the keypad."""
        return [call.pin for call in self.calls if call.operation == "login"]

    @property
    def pins_sent(self) -> list[bytes]:
        """Every PIN that left the agent, in whatever call."""
        return [call.pin for call in self.calls if call.pin is not None]

    @property
    def alive(self) -> list[int]:
        """The numbers of the workers that run with the module in them."""
        return [worker.number for worker in self.workers if worker.alive]

    async def entered(self, call: Call) -> None:
        """Note the call, and let happen what was planned for it."""
        self.calls.append(call)
        faults = self._faults.get(call.operation, [])
        fault = faults.pop(0) if faults else None
        if isinstance(fault, Gate):
            fault.entered.set()
            await fault.opened.wait()
        elif fault is not None:
            raise fault


class StandInWorker:
    """A worker without a process: the sessions it has are its own, the tokens are those of `slots`."""

    def __init__(self, slots: Slots, deadlines: Deadlines) -> None:
        self.number = -1
        self.deadlines = deadlines
        self.pid = id(self)
        self.alive = True
        self.started_at = boottime()
        self.last_sign = float("-inf")
        self.asked = False
        self.uses_pcscd = slots.uses_pcscd
        self.token_in_use: Header | None = None
        self.removals: list[float] = []
        """The graces that were given when what it worked on was removed."""
        self.opened: set[TokenId] = set()
        self.ready: set[TokenId] = set()
        self.candidates: dict[tuple[TokenId, str], int] = {}
        self._slots = slots
        self._logged_in: set[TokenId] = set()
        self._slot_of: dict[TokenId, int | None] = {}

    def attach(self, descriptor: int) -> None:
        """It prints nothing."""
        os.close(descriptor)

    async def load(self, path: str, arguments: LoadArguments = PLAIN) -> str:
        self.number = len(self._slots.workers)
        self._slots.workers.append(self)
        await self._enter("load")
        return f"stand-in for {path}"

    async def slots(self) -> ListedSlots:
        await self._enter("slots")
        return [(self._slots.number_of(token), True, self._slots.removable) for token in self._slots.tokens]

    async def scan(self) -> list[TokenInfo]:
        await self._enter("scan")
        return [
            TokenInfo(
                token.identity,
                token.flags,
                self._slots.number_of(token),
                self._slots.reader_of(token),
                self._slots.removable,
            )
            for token in self._slots.tokens
        ]

    async def peek(self, slot: int) -> list[Header]:
        await self._enter("peek")
        [token] = [one for one in self._slots.tokens if self._slots.number_of(one) == slot]
        return token.records(logged_in=False)

    async def open(self, identity: TokenId, slot: int | None, key_id: bytes | None = b"") -> Opened:
        await self._enter("open")
        self._slot_of[identity] = slot
        token = self._find(identity)
        if key_id is not None:
            self.opened.add(identity)
        twins = [one for one in self._slots.tokens if one.identity == identity.original]
        records = token.records(logged_in=identity in self._logged_in)[: 1 if key_id is None else None]
        return Opened(token.flags, records, len(twins) > 1, self._slots.removable)

    async def flags(self, identity: TokenId) -> TokenFlag:
        await self._enter("flags")
        assert identity in self.opened
        return self._find(identity).flags

    async def login(self, identity: TokenId, pin: bytearray | None, key_id: bytes = b"") -> LoggedIn:
        sent = await self._enter("login", pin)
        token = self._find(identity)
        try:
            self._check_pin(token, sent)
        except WorkerRefusedError:
            self._slots.refused_pins += 1
            raise
        self._logged_in.add(identity)
        self.ready.add(identity)
        return LoggedIn(token.records(logged_in=True), True)

    async def sign(
        self,
        identity: TokenId,
        key: str,
        key_id: bytes,
        mechanism: str,
        data: bytes,
        size: int,
        pin: bytearray | None,
        *,
        keypad: bool,
        candidate: int = 0,
    ) -> RawSignature:
        sent = await self._enter("sign", pin)
        token = self._find(identity)
        private = next(one for one in token.keys if one.reference == key)
        if identity not in self.ready:
            raise WorkerRefusedError(Verdict.NOT_LOGGED_IN, "C_Sign: CKR_USER_NOT_LOGGED_IN")
        assert private.always_authenticate == (pin is not None or keypad)
        if private.always_authenticate:
            self._check_pin(token, sent)
        signature = private.sign(mechanism, data)
        assert len(signature) == size
        return RawSignature(signature, 1)

    def end(self) -> None:
        self.alive = False

    async def wait_for_end(self) -> None:
        """It has no process."""

    def kill(self) -> None:
        self.alive = False

    def end_unless_answered(self, grace: float) -> None:
        self.removals.append(grace)

    async def _enter(self, operation: str, pin: bytearray | None = None) -> bytes | None:
        """Begin an operation; the PIN as it was sent, whatever becomes of the agent's buffer."""
        assert self.alive, f"{operation} was asked of a dead worker"
        sent = None if pin is None else bytes(pin)
        try:
            await self._slots.entered(Call(self.number, operation, sent))
        except WorkerLostError:
            self.alive = False
            raise
        if not self.alive:
            raise WorkerLostError(f"killed during {operation}")
        return sent

    def _find(self, identity: TokenId) -> StandInToken:
        for token in self._slots.tokens:
            slot = self._slot_of.get(identity)
            if token.identity == identity.original and slot in (None, self._slots.number_of(token)):
                return token
        raise WorkerRefusedError(Verdict.TOKEN_ABSENT, f"{identity} is in no slot")

    @staticmethod
    def _check_pin(token: StandInToken, pin: bytes | None) -> None:
        if TokenFlag.USER_PIN_LOCKED in token.flags:
            raise WorkerRefusedError(Verdict.PIN_LOCKED, "C_Login: CKR_PIN_LOCKED")
        if pin is not None and pin != token.pin:
            raise WorkerRefusedError(Verdict.PIN_INCORRECT, "C_Login: CKR_PIN_INCORRECT")


SOFTWARE_KEYS = "replug.agent.keys.software_worker"


class StandInForkServer:
    """What forks the processes that stand-in workers do not have; that of software keys is a real one."""

    def __init__(self) -> None:
        self.failure: OSError | None = None
        self.spares_asked_for = 0
        self._real: RunningForkServer | None = None

    async def fork_or_spare(self, program: str, patience: float) -> Forked | None:
        self.spares_asked_for += 1
        return await self.fork(program, patience)

    def close(self) -> None:
        """As the real one, which ends its spares."""

    async def fork(self, program: str, patience: float) -> Forked | None:
        if self.failure is not None:
            raise self.failure
        if program != SOFTWARE_KEYS:
            return None
        self._real = self._real or RunningForkServer()
        return await self._real.fork(program, patience)


class Person:
    """A prompter: types the `answers` in turn, cancels at None, and is not to be asked more often."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[PinRequest] = []
        self.pins: list[Pin] = []
        self.agrees = True
        """Whether a key may be used."""
        self.confirmations: list[ConfirmRequest] = []
        self.asked = asyncio.Event()
        self.may_answer: Awaitable[Any] | None = None
        """What the person waits for before answering, if anything."""

    async def confirm(self, request: ConfirmRequest) -> bool:
        self.confirmations.append(request)
        self.asked.set()
        if self.may_answer is not None:
            await self.may_answer
        return self.agrees

    async def ask(self, request: PinRequest) -> Pin:
        self.requests.append(request)
        self.asked.set()
        if self.may_answer is not None:
            await self.may_answer
        assert self.answers, f"nobody expected the question {request.text()!r}"
        answer = self.answers.pop(0)
        if answer is None:
            raise request.cancelled()
        pin = Pin(answer, last_try_known=TokenFlag.USER_PIN_FINAL_TRY in request.flags)
        self.pins.append(pin)
        return pin


class AtOneDesk:
    """Puts all questions to `person` at one place, as the real prompter does at each."""

    def __init__(self, person: Person, clock: Callable[[], float] = boottime) -> None:
        self.person = person
        self._turns = QuestionTurns(60)
        self._restraint = Restraint(clock)

    async def ask(self, request: PinRequest) -> Pin:
        async with self._turns.turn("the desk", request):
            return await self._restraint.ask(self.person, request)

    async def confirm(self, request: ConfirmRequest) -> bool:
        async with self._turns.turn("the desk", request):
            return await self._restraint.confirm(self.person, request)


def use_slots(monkeypatch: pytest.MonkeyPatch, slots: Slots) -> None:
    """Let every pool start stand-ins instead of processes."""

    monkeypatch.setattr("replug.token.worker.starter.WorkerClient", slots.start_worker)


def lost() -> WorkerLostError:
    """The end of a worker in the middle of an operation."""
    return WorkerLostError("the worker process ended")


def refused(verdict: Verdict, reason: str = "refused") -> WorkerRefusedError:
    """A worker's refusal."""
    return WorkerRefusedError(verdict, reason)
