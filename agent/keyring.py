"""What the agent has: modules, identities, PINs and the lock; and how a provider comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

from replug.agent.identities import HeldKey, Identities
from replug.agent.lock import Lock
from replug.agent.offload import TooManyThreadsError, in_daemon_thread
from replug.agent.options import Options
from replug.agent.patterns import matches_list
from replug.agent.refusal import RequestRefusedError
from replug.protocol.keys import fingerprint
from replug.token.errors import ModuleUnreachableError, PinLockedError, TokenAbsentError
from replug.token.locate import locate_module
from replug.token.module import Module
from replug.token.pin import Pin, PinCache
from replug.token.prompt import Asker, Prompter
from replug.token.provider import Provider
from replug.token.served import ServedToken
from replug.token.uri import Uri, UriError, is_uri, parse_uri

log = logging.getLogger(__name__)

_LONGEST_NAME = 4096  # bytes, Linux's PATH_MAX
_FILE_SYSTEM_PATIENCE = 10.0  # seconds
_LONGEST_SLEEP = 60.0  # seconds; timers stand still while the machine sleeps, lifetimes do not


class Keyring:
    """The state behind all connections."""

    def __init__(self, options: Options, prompter: Prompter) -> None:
        self.options = options
        self.identities = Identities()
        self.lock = Lock()
        self.pins = PinCache()
        self._prompter = prompter
        self._modules: dict[str, Module] = {}
        self._being_added: list[Provider] = []
        self._generation = 0  # counts how often everything was removed
        self._expiry: asyncio.TimerHandle | None = None

    async def add_provider(self, name: str, pin: Pin | None, lifetime: int | None) -> None:
        """Serve the keys of the provider `name`, a path or a PKCS#11 URI.

        `lifetime` is in seconds, None for the default of the command line. Adding it again looks at the
        tokens afresh. Raises TokenError or RequestRefusedError, and then nothing has changed but for the
        PIN try that a wrong PIN costs.
        """
        # It goes on to its end when the client hangs up: a PIN must not be wiped in the middle of a login.
        adding = asyncio.create_task(self._add_provider_and_wipe(name, pin, lifetime))
        adding.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(adding)

    async def _add_provider_and_wipe(self, name: str, pin: Pin | None, lifetime: int | None) -> None:
        try:
            await self._add_provider(name, pin, lifetime)
        finally:
            if pin is not None:
                self.pins.wipe_unless_kept(pin)

    async def _add_provider(self, name: str, pin: Pin | None, lifetime: int | None) -> None:
        generation = self._generation
        path, uri = await _resolve(name, must_exist=True)
        self._check_allowed(path)
        module = self._modules.get(path)
        if module is None:
            deadlines = self.options.config.deadlines
            module = self._modules[path] = Module(path, self.pins, self._prompter, deadlines)
        provider = Provider(name if not is_uri(name) else str(uri), module, uri)
        self._being_added.append(provider)
        self._serve_what_is_added()
        try:
            await provider.load(pin)
            if self.lock.locked or generation != self._generation:
                raise RequestRefusedError("the agent was locked or emptied meanwhile")
            self.identities.add(provider, self._lifetime(lifetime))
        finally:
            self._being_added.remove(provider)
            self._serve_what_is_added()
        self._plan_expiry()
        log.info("provider added", extra={"provider": provider.name, "path": path})

    async def sign(self, blob: bytes, data: bytes, flags: int, asker: Asker) -> tuple[bytes, ServedToken]:
        """The signature blob by the key `blob`, and the token that made it.

        A key may be on several tokens: any that is in will do, with its own PIN. If all are out, the
        configuration says how long to wait for one. Raises RequestRefusedError, TokenError, ProtocolError.
        """
        holders = self.identities.holding(blob)
        if not holders:
            raise RequestRefusedError(f"key {fingerprint(blob)} is not in the agent")
        patience = self.options.config.wait_for_token
        try:
            return await _sign_with_any(holders, data, flags, asker)
        except TokenAbsentError as absent:
            if not patience or not await _any_back(holders, patience):
                raise
            log.info("the token came back in time", extra={"why": str(absent), "program": asker.program})
        return await _sign_with_any(holders, data, flags, asker)

    async def remove_provider(self, name: str) -> None:
        """Serve a provider no more; a path means all that was added of that module.

        RequestRefusedError if it was not added.
        """
        path, uri = await _resolve(name, must_exist=False)
        whole_module = not is_uri(name)
        found = self.identities.remove_provider(
            lambda provider: provider.module.path == path and (whole_module or provider.uri.same_choice(uri))
        )
        if not found:
            raise RequestRefusedError(f"{path if whole_module else uri} was not added")
        self._serve_what_is_added()
        log.info("provider removed", extra={"provider": path if whole_module else str(uri)})

    def remove_all(self) -> None:
        """Drop every identity, forget every PIN and end every worker."""
        self._generation += 1
        self.identities.clear()
        self.forget_pins()
        self._serve_what_is_added()

    def drop_expired(self) -> None:
        """Drop the identities that have outlived their lifetime."""
        if self.identities.drop_expired():
            log.info("keys expired")
            self._serve_what_is_added()

    def forget_pins(self) -> int:
        """Forget every PIN and end the logins, but keep serving the keys; how many PINs there were."""
        return sum(token.forget_pin() for module in self.modules() for token in module.tokens.values())

    def modules(self) -> list[Module]:
        """The modules in use."""
        return list(self._modules.values())

    def _lifetime(self, requested: int | None) -> int | None:
        return requested if requested is not None else self.options.default_lifetime or None

    def _check_allowed(self, path: str) -> None:
        if not matches_list(path, self.options.provider_patterns):
            raise RequestRefusedError(
                f"{path} is not in the list of allowed modules ({self.options.provider_patterns})",
                "start the agent with -P to allow it",
            )

    def _serve_what_is_added(self) -> None:
        """Have each module serve what its providers choose; drop the modules that nobody wants any more."""
        providers = self.identities.providers() + self._being_added
        for path, module in list(self._modules.items()):
            choices = [provider.uri for provider in providers if provider.module is module]
            module.serve(choices)
            if not choices:
                del self._modules[path]

    def _plan_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        wait = self.identities.next_expiry()
        if wait is not None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(min(wait, _LONGEST_SLEEP), self._expire)

    def _expire(self) -> None:
        self.drop_expired()
        self._plan_expiry()


async def _sign_with_any(
    holders: list[HeldKey], data: bytes, flags: int, asker: Asker
) -> tuple[bytes, ServedToken]:
    *others, last = holders
    for held in others:
        with contextlib.suppress(TokenAbsentError, ModuleUnreachableError, PinLockedError):
            return await held.token.sign(held.key, data, flags, asker), held.token
    return await last.token.sign(last.key, data, flags, asker), last.token


async def _any_back(holders: list[HeldKey], patience: float) -> bool:
    """Whether one of the tokens is back within `patience` seconds."""
    waiting = [asyncio.create_task(held.token.wait_until_back()) for held in holders]
    try:
        done, _ = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return bool(done)


async def _resolve(name: str, *, must_exist: bool) -> tuple[str, Uri]:
    """The canonical path of the module that `name` means, and what is chosen of it."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise RequestRefusedError(f"the provider's name is longer than {_LONGEST_NAME} bytes")
    try:
        uri = parse_uri(name) if is_uri(name) else None
    except UriError as error:
        raise RequestRefusedError(f"not a PKCS#11 URI: {error}") from error
    try:
        # In a thread: a path on a dead network file system takes its time.
        async with asyncio.timeout(_FILE_SYSTEM_PATIENCE):
            path = await in_daemon_thread(lambda: _canonical_path(name, uri, must_exist))
    except (TimeoutError, TooManyThreadsError):
        raise RequestRefusedError(f"no answer from the file system about {name}") from None
    except FileNotFoundError:
        raise RequestRefusedError(f"{name} does not exist", "give the path of a module, or a URI") from None
    except OSError as error:
        raise RequestRefusedError(f"{name}: {error.strerror}") from error
    return path, uri or Uri()


def _canonical_path(name: str, uri: Uri | None, must_exist: bool) -> str:
    return os.path.realpath(name if uri is None else locate_module(uri), strict=must_exist)
