"""Makes a key pair on a token for `replug keygen`: finds the token, asks for the PIN, makes, and proves.

The rules for PINs are those of the agent (`pins/rules.py`). Nothing is tried twice: a second attempt could
make a second key.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from replug.token.errors import (
    NobodyAskedError,
    PinNeededError,
    PinRejectedError,
    PromptError,
    TokenError,
    WorkerLostError,
    WorkerRefusedError,
)
from replug.token.identity import TokenFlag, TokenInfo
from replug.token.keygen.key_advice import how_to_get_a_key, makes_keys_for_its_user
from replug.token.keygen.key_client import KeyWorker, WantedKey
from replug.token.keys import TokenKey
from replug.token.names.p11kit import ModuleSource
from replug.token.names.uri import Uri
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.pins.rules import PinRules
from replug.token.prompts.dialogue import PinDialogue
from replug.token.prompts.request import Asker, PinRequest, Prompter
from replug.token.serving.opening import read_all
from replug.token.serving.shown_keys import ShownKeys
from replug.token.serving.signing import signature_on, signing_algorithm
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import ForkServer
from replug.token.worker.key_types import KeyType, usual_type

_TEST_DATA = b"a new key of replug keygen"
_SIGN_SHA256 = 0x02
"""SSH_AGENT_RSA_SHA2_256; other keys ignore it."""
_PURPOSE = ("to make a new key on it",)
_OTHER_TYPE = ("the token cannot make keys of this type", "choose another one with --type")
_OFFICER = ("only its security officer may make keys", "use the tool of its maker")
_READ_ONLY = ("the token is write-protected", "")
_REASONS = {
    "CKR_ATTRIBUTE_VALUE_INVALID": _OTHER_TYPE,
    "CKR_CURVE_NOT_SUPPORTED": _OTHER_TYPE,
    "CKR_DEVICE_MEMORY": (
        "the token has no room for another key",
        "delete what is no longer needed from it, or use another token",
    ),
    "CKR_DOMAIN_PARAMS_INVALID": _OTHER_TYPE,
    "CKR_KEY_SIZE_RANGE": _OTHER_TYPE,
    "CKR_MECHANISM_INVALID": _OTHER_TYPE,
    "CKR_SESSION_READ_ONLY": _READ_ONLY,
    "CKR_TOKEN_WRITE_PROTECTED": _READ_ONLY,
    "CKR_USER_NOT_LOGGED_IN": _OFFICER,
    "CKR_USER_TYPE_INVALID": _OFFICER,
}
"""What errors of a module mean while a key is made, and what the user can do."""


@dataclass(frozen=True)
class FoundToken:
    """A token in a slot, and the module that shows it."""

    info: TokenInfo
    source: ModuleSource

    def __str__(self) -> str:
        return str(self.info.identity)

    @property
    def uri(self) -> Uri:
        """Its URI, which no other token has unless they are alike."""
        identity = self.info.identity
        return Uri(
            token=identity.label or None,
            serial=identity.serial or None,
            model=None if identity.label or identity.serial else identity.model,
            module_path=self.source.path,
        )


@dataclass(frozen=True)
class Wish:
    """What the user wants; what is empty or None is chosen here."""

    type: KeyType | None
    key_id: bytes
    label: str


@dataclass(frozen=True)
class NewKey:
    """A key that was made, and has signed."""

    key: TokenKey
    module: str
    """The path of the module by which it was made."""


class _PinRequest(PinRequest):
    """Asked by a program that has no agent to give the PIN to."""

    def nobody_asked(self, failures: Sequence[NobodyAskedError]) -> PromptError:
        return PromptError(super().nobody_asked(failures).reason, "run it on a terminal or a desktop")


class KeyMaker:
    """Makes one key, with worker processes that it ends."""

    def __init__(
        self, fork_server: ForkServer, deadlines: Deadlines, prompter: Prompter, say: Callable[[str], None]
    ) -> None:
        """`say` is called with what the user should know meanwhile."""
        self._fork_server = fork_server
        self._deadlines = deadlines
        self._prompter = prompter
        self._say = say
        self._asker = Asker(pid=os.getpid(), purpose=_PURPOSE)

    async def find(self, sources: Sequence[ModuleSource], uri: Uri) -> FoundToken:
        """The only token that `uri` chooses, among those with a login if there are any. TokenError."""
        if not sources:
            raise TokenError("no module is known", "name one: 'pkcs11:?module-path=/path/to/module.so'")
        found: list[FoundToken] = []
        problems: list[str] = []
        for source in sources:
            try:
                async with self._worker(source) as worker:
                    found += [FoundToken(info, source) for info in await worker.scan()]
            except (TokenError, WorkerLostError, WorkerRefusedError) as error:
                problems.append(f"{source.path}: {error}")
        chosen = [token for token in found if uri.matches_token(token.info.identity)]
        if len(chosen) > 1:
            chosen = [token for token in chosen if TokenFlag.LOGIN_REQUIRED in token.info.flags] or chosen
        match chosen:
            case [token]:
                return token
            case []:
                reasons = "".join(f" ({problem})" for problem in problems)
                raise TokenError(f"no such token is present{reasons}", "plug it in, or check its URI")
        names = " ".join(f"'{token.uri}'" for token in chosen)
        raise TokenError("several tokens are present", f"name one of them: {names}")

    async def make(self, token: FoundToken, wish: Wish) -> NewKey:
        """Make the key on the token. TokenError, also when the user gives no PIN."""
        identity, module = token.info.identity, token.source.path
        if not makes_keys_for_its_user(identity, module):
            raise TokenError(
                f"{token}: keys are not made with the PIN on this kind of token, but with its own tool",
                how_to_get_a_key(identity, module),
            )
        owner = PinOwner(module, identity, ShownKeys(lambda: None))
        rules = PinRules(owner, PinCache(lambda: None), lambda _: PinPolicy())
        dialogue = PinDialogue(self._prompter, rules.refused_lately)
        try:
            while True:
                try:
                    async with self._worker(token.source) as worker:
                        return await self._make_on(worker, token, wish, rules, dialogue)
                except PinRejectedError as rejected:
                    if rejected is dialogue.last:
                        raise
                    dialogue.refused(PinRejectedError(rejected.reason, "", rejected.rejection))
                except PinNeededError:
                    dialogue.not_sent(TokenError(f"{token}: only one PIN try is left", "try again"))
        except WorkerLostError as error:
            raise TokenError(f"{token}: {error}", "look at its keys before you try again") from error
        except WorkerRefusedError as error:
            words, next_step = _REASONS.get(error.value, ("", error.next_step))
            reason = f"{error.reason}: {words}" if words else error.reason
            raise TokenError(f"{token}: {reason}", next_step) from error

    @asynccontextmanager
    async def _worker(self, source: ModuleSource) -> AsyncIterator[KeyWorker]:
        try:
            worker = await KeyWorker.start(source.path, source.arguments, self._fork_server, self._deadlines)
        except OSError as error:
            raise TokenError(f"no worker process can be started: {error.strerror}") from error
        try:
            yield worker
        finally:
            worker.end()
            await worker.wait_for_end()

    async def _make_on(
        self,
        worker: KeyWorker,
        token: FoundToken,
        wish: Wish,
        rules: PinRules,
        dialogue: PinDialogue,
    ) -> NewKey:
        identity = token.info.identity
        opened = await worker.open(identity, token.info.slot)
        type_ = await self._type(worker, token, wish)
        await self._free_id(worker, token, wish.key_id)  # before anybody is asked for a PIN
        rules.refuse_if_locked(opened.flags)
        if TokenFlag.LOGIN_REQUIRED not in opened.flags:
            return await self._make_logged_in(worker, token, wish, type_, None)
        if TokenFlag.PROTECTED_AUTHENTICATION_PATH in opened.flags:
            self._say(f"{token}: enter the PIN on its keypad")
            await self._log_in(worker, token, rules, None)
            return await self._make_logged_in(worker, token, wish, type_, None)
        pin = await dialogue.ask(_PinRequest(identity, opened.flags, "", self._asker))
        pin.may_be_kept = False
        with rules.using(pin):
            await self._log_in(worker, token, rules, pin)
            return await self._make_logged_in(worker, token, wish, type_, pin)

    async def _log_in(self, worker: KeyWorker, token: FoundToken, rules: PinRules, pin: Pin | None) -> None:
        """Log in if it is still this token, and if its flags, read now, allow it."""
        identity = token.info.identity
        chosen = rules.choose(pin, await worker.flags(identity))
        try:
            await worker.login(identity, None if chosen is None else chosen.value)
        except WorkerRefusedError as refused:
            worker.kill()
            rules.refused(refused, chosen)
            raise
        rules.accepted(chosen)

    async def _make_logged_in(
        self, worker: KeyWorker, token: FoundToken, wish: Wish, type_: KeyType, pin: Pin | None
    ) -> NewKey:
        identity = token.info.identity
        key_id = await self._free_id(worker, token, wish.key_id)
        self._say(f"Making the key {type_} with the id %{key_id.hex()} on {token} ...")
        guarded = await worker.make_key(identity, WantedKey(type_, key_id, wish.label))
        where = f"{token}: the key with the id %{key_id.hex()} was made, but"
        if not guarded:
            raise TokenError(f"{where} the token does not say that it stays inside", "do not use it")
        found = await read_all((await worker.open(identity, token.info.slot, key_id)).records)
        if len(found.keys) != 1:
            raise TokenError(f"{where} the token does not show it as one that ssh can use")
        [key] = found.keys.values()
        algorithm = signing_algorithm(key.public, _SIGN_SHA256 if type_.bits else 0)
        secret = pin.value if pin is not None and key.always_authenticate else None
        try:
            await signature_on(worker, identity, key, algorithm, _TEST_DATA, secret)
        except (TokenError, WorkerRefusedError) as error:
            raise TokenError(f"{where} it does not sign: {error}") from error
        return NewKey(key, token.source.path)

    async def _type(self, worker: KeyWorker, token: FoundToken, wish: Wish) -> KeyType:
        able, write_protected = await worker.makes(token.info.identity)
        if write_protected:
            raise TokenError(f"{token}: {_READ_ONLY[0]}", _READ_ONLY[1])
        if not able:
            raise TokenError(
                f"{token}: its module makes no keys that ssh can use", "use the tool of the token's maker"
            )
        if wish.type is not None and wish.type not in able:
            raise TokenError(
                f"{token}: it cannot make a key of the type {wish.type}", f"choose one of {', '.join(able)}"
            )
        type_ = wish.type or usual_type(able)
        assert type_ is not None
        return type_

    async def _free_id(self, worker: KeyWorker, token: FoundToken, wanted: bytes) -> bytes:
        key_id = await worker.free_id(token.info.identity, wanted)
        if not key_id and wanted:
            raise TokenError(
                f"{token}: something on it has the id %{wanted.hex()} already, and nothing is overwritten",
                "choose another id, or leave it out",
            )
        if not key_id:
            raise TokenError(f"{token}: all ids of one byte are taken", "choose a longer one in the URI")
        return key_id
