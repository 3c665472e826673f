"""A token that the agent serves, wherever it is plugged in: its keys, its PIN, and signing with it.

Waiting clients of one command share one prompt and one login. `opening.py` and `operations.py` have the steps
on a worker, `recovery.py` the retry after a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar, TypeVarTuple

from replug.token.errors import (
    PinNeededError,
    PinRejectedError,
    Rejection,
    TokenAbsentError,
    TokenError,
)
from replug.token.identity import TokenFlag, TokenId
from replug.token.keys import LeftOut, TokenKey
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PolicyOf
from replug.token.pins.rules import PinRules
from replug.token.prompts.dialogue import PinDialogue
from replug.token.prompts.request import Asker, Origin, PinRequest, Prompter
from replug.token.serving.opening import TokenOpening
from replug.token.serving.operations import TokenOperations
from replug.token.serving.presence import Presence, TokenState
from replug.token.serving.recovery import attempt
from replug.token.serving.shared import SharedAttempt, StoppedError
from replug.token.serving.shown_keys import ShownKeys
from replug.token.serving.signing import signing_algorithm
from replug.token.worker.pool import WorkerPool

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_LOGINS_PER_SIGNATURE = 2
_GRACE = (0.3, 0.6)  # seconds between looks for a token that was there until now


class ServedToken(Presence):
    """One token: it signs, and asks for the PIN and logs in if need be."""

    def __init__(
        self,
        identity: TokenId,
        pool: WorkerPool,
        pins: PinCache,
        prompter: Prompter,
        policy_of: PolicyOf,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called after each change of the state or the keys."""
        super().__init__(identity, changed)
        self.wants_login = True
        """Whether it has CKF_LOGIN_REQUIRED."""
        self._pool = pool
        keys = ShownKeys(changed)
        self.pin_owner = PinOwner(pool.path, identity, keys)
        """What PINs are kept for."""
        self._rules = PinRules(self.pin_owner, pins, policy_of)
        self._opening = TokenOpening(self, pool, self._rules, self.pin_owner, keys)
        self._operations = TokenOperations(self, pool, pins, self._rules, self.pin_owner, self._opening)
        self._prompter = prompter
        self._logins: dict[Origin, SharedAttempt] = {}
        """The prompts and logins under way, by whom they are for."""
        self._logged_in = self._failed = 0
        """How many of the PINs that were typed at these prompts have logged in, and how many have not."""

    @property
    def keys(self) -> dict[bytes, TokenKey]:
        """The keys by public key blob, as last read; no worker is asked."""
        return self._opening.keys.offered

    @property
    def left_out(self) -> list[LeftOut]:
        """Its keys that are not offered, when it was read last."""
        return self._opening.left_out

    @property
    def pin_remembered(self) -> bool:
        """Whether a PIN is cached for this token."""
        return self._rules.remembers

    @property
    def pin_configured(self) -> bool:
        """Whether the configuration says where its PIN is."""
        return self._rules.has_source

    @property
    def was_read(self) -> bool:
        """Whether `keys` are those that the token has shown since the agent serves it."""
        return self._opening.keys.were_read

    @property
    def hidden_keys(self) -> frozenset[bytes]:
        """The blobs of the keys that it shows only after login."""
        return self._opening.keys.hidden

    def recall(self, keys: Iterable[TokenKey], hidden: frozenset[bytes]) -> None:
        """Know these keys from before, `hidden` as above, until the token is read."""
        self._opening.keys.recall(keys, hidden)

    async def read(self) -> None:
        """Find the token and read its keys, without login."""
        await attempt(self._pool, self._opening.open, token=self)

    async def log_in(self, pin: Pin) -> None:
        """Log in with a PIN that came with a request, on a worker that is not, so that it is really checked.

        Raises PinRejectedError, and PinNeededError when it is the last try, which the user who typed
        this PIN may not have known. Wipes the PIN unless it is kept. One that is refused changes nothing.
        """
        with self._rules.using(pin):
            await attempt(self._pool, self._operations.log_in, pin, True, token=self, logged_out=True)

    async def sign(
        self,
        key: TokenKey,
        data: bytes,
        flags: int,
        asker: Asker,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
        *,
        comment: str = "",
    ) -> bytes:
        """The signature blob over `data`; `flags` are the sign request's (RFC 9987 section 5.6.1).

        Asks for the PIN on behalf of `asker` if need be; the key is called by its `comment`, or its label.
        The context that `waiting` returns is entered while the token works, and not while the user is asked.
        Raises TokenError, and ProtocolError for unknown flags.
        """
        algorithm = signing_algorithm(key.public, flags)
        prompts, pauses = 0, iter(_GRACE if self.present else ())
        while True:
            try:
                with waiting():
                    return await attempt(
                        self._pool,
                        self._operations.sign,
                        key.blob,
                        algorithm,
                        data,
                        token=self,
                        anywhere=True,
                    )
            except TokenAbsentError:
                # A bad contact, a reset reader or a restarted pcscd takes it away for less than a second.
                pause = next(pauses, None)
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            except PinNeededError as needed:
                if prompts == _LOGINS_PER_SIGNATURE:
                    raise TokenError(
                        f"{self.identity} was not logged in after {_LOGINS_PER_SIGNATURE} PIN prompts"
                    ) from needed
                prompts += 1
                await self._ask_and_log_in(needed.rejection, key, comment or key.label, asker)
            except PinRejectedError as rejected:
                # A key that wants the PIN at every use has refused one that was typed for it.
                if prompts == _LOGINS_PER_SIGNATURE or rejected.rejection is None:
                    raise
                prompts += 1
                await self._ask_and_log_in(rejected.rejection, key, comment or key.label, asker)

    def left(self) -> None:
        """The token is in no slot any more."""
        if self.state is not TokenState.ABSENT:
            self._rules.forget_if(ForgetOn.REMOVAL)
            self._opening.keys.left()
        super().left()

    def seen(self, flags: TokenFlag) -> bool:
        """The token is in a slot, with these flags; whether it was not there before."""
        self.wants_login = TokenFlag.LOGIN_REQUIRED in flags
        arrived = not self.present
        self.returned()
        return arrived

    def forget_pin(self) -> bool:
        """Forget the PIN and end the login; whether there was a PIN. Its keys stay."""
        forgotten = self._rules.forget()
        self._end_login()
        return forgotten

    def forget_pin_if(self, event: ForgetOn) -> None:
        """Forget the PIN and end the login, if that is the policy for `event`."""
        if self._rules.forget_if(event):
            self._end_login()

    def apply_policy(self) -> None:
        """Apply the current policy to the remembered PIN."""
        self._rules.apply_policy()

    def suspend(self) -> None:
        """End the login, and close a PIN prompt, because the agent is being locked."""
        self._withdraw_prompts()
        self._end_login()

    def close(self) -> None:
        """Forget the PIN and end the worker, and with it the session; requests that wait are refused."""
        super().close()
        self.forget_pin()
        self._withdraw_prompts()

    def may_have_changed(self) -> None:
        """Have the next login read all keys, as another program may have made some."""
        self._opening.keys.may_have_changed()

    def _end_login(self) -> None:
        self.may_have_changed()
        self._pool.restart()
        self.logged_out()

    def _withdraw_prompts(self, but: SharedAttempt | None = None) -> None:
        for login in self._logins.values():
            if login is not but:
                login.stop()

    async def _ask_and_log_in(
        self, rejection: Rejection | None, key: TokenKey, name: str, asker: Asker
    ) -> None:
        """The prompts and one login for all clients of one origin; its failure refuses these, and only these.

        Others have prompts of their own, perhaps at the same time on another terminal: who declines there
        does not decide for them. The first PIN that logs in is for all; after one that does not, the others
        are asked again, as the risk is another.
        """
        self._logins = {origin: login for origin, login in self._logins.items() if not login.idle}
        before = self._logged_in, self._failed
        while self._logged_in == before[0]:
            login = self._logins.setdefault(asker.origin, SharedAttempt())
            try:
                await login.join(partial(self._prompt_and_log_in, login, key, name, asker, rejection))
                return
            except StoppedError:
                self._opening.refuse_if_closed()
                if before == (self._logged_in, self._failed):
                    raise TokenError(f"{self.identity}: the PIN prompt was withdrawn") from None
                before = before[0], self._failed

    async def _prompt_and_log_in(
        self, login: SharedAttempt, key: TokenKey, name: str, asker: Asker, rejection: Rejection | None
    ) -> None:
        dialogue = PinDialogue(self._prompter, self._rules.refused_lately, rejection)
        while not await self._typed_pin_logs_in(login, key, name, asker, dialogue):
            pass

    async def _typed_pin_logs_in(
        self, login: SharedAttempt, key: TokenKey, name: str, asker: Asker, dialogue: PinDialogue
    ) -> bool:
        """Ask once; whether the PIN, or one that was typed elsewhere meanwhile, has logged in."""
        before = self._logged_in, self._failed

        def is_moot() -> bool:
            return before != (self._logged_in, self._failed)

        flags = await attempt(self._pool, self._operations.open_to_ask, token=self)
        if self._logged_in != before[0]:
            return True
        with login.stoppable():
            pin = await dialogue.ask(PinRequest(self.identity, flags, name, asker, is_moot=is_moot))
        try:
            with self._rules.using(pin):
                await attempt(self._pool, self._operations.log_in, pin, key.always_authenticate, token=self)
            self._logged_in += 1
            return True
        except PinRejectedError as rejected:
            self._failed += 1
            dialogue.refused(rejected)
        except PinNeededError:
            dialogue.not_sent(
                TokenError(
                    f"{self.identity}: the PIN was not sent, because a wrong PIN was entered meanwhile",
                    "try again",
                )
            )
        except TokenError:
            self._failed += 1
            raise
        finally:
            if is_moot():
                self._withdraw_prompts(but=login)
        return False
