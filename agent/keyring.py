"""What the agent has: modules, identities, PINs and the lock; and how a provider comes and goes."""

from __future__ import annotations

import asyncio
import logging

from replug.agent.clients.client import Client
from replug.agent.config.model import AUTO
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.keys.certificate_files import CertificateFiles
from replug.agent.keys.certificates import Certificates
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identities import Identities
from replug.agent.keys.identity import Identity, SoftwareIdentity
from replug.agent.keys.lock import Lock
from replug.agent.keys.modules import Modules
from replug.agent.keys.provider_names import ANY_MODULE, resolve
from replug.agent.keys.served_provider import ServedProvider, SettingsFinder
from replug.agent.keys.software import SoftwareKeys
from replug.agent.keys.token_settings import TokenSettingsFinder
from replug.agent.options import Options
from replug.agent.refusal import RequestRefusedError, unknown_key
from replug.agent.signing import Signing
from replug.protocol.constraints import AssociatedCerts, Constraint, Lifetime, SkProvider
from replug.protocol.keys import fingerprint
from replug.protocol.messages import SignRequest
from replug.protocol.patterns import matches_list
from replug.token.boottime import boottime
from replug.token.errors import TokenError
from replug.token.module import Module
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.pin import Pin, PinCache
from replug.token.prompts.request import Prompter
from replug.token.provider import Provider
from replug.token.seal import Seal
from replug.token.served import ServedToken
from replug.token.uri import is_uri

log = logging.getLogger(__name__)

_FIRST_LOOK = 5.0  # seconds
_LONGEST_SLEEP = 60.0  # seconds; timers stand still while the machine sleeps, lifetimes do not


class Keyring:
    """The state behind all connections."""

    def __init__(self, options: Options, prompter: Prompter, notices: TouchNotices) -> None:
        self.options = options
        self.identities = Identities()
        self.pins = PinCache()
        self._seal = Seal()
        self.lock = Lock(self._seal, self._seal_all, self._unseal_all)
        self._software_keys = SoftwareKeys(self._seal)
        self._signing = Signing(self.identities, lambda: self.options, prompter, notices)
        self._settings = TokenSettingsFinder(lambda: self.options.config)
        self.certificate_files = CertificateFiles(lambda: self.options.config.certificates)
        self._modules = Modules(
            lambda: self.options.config, self._settings, self.pins, prompter, self.identities.providers
        )
        self.notices = notices
        self._generation = 0  # counts how often everything was removed
        self._expiry: asyncio.TimerHandle | None = None
        self._beginning: asyncio.Task[None] | None = None

    async def add_key(self, client: Client, message: bytearray) -> Identity:
        """Hold the private key of an ADD_IDENTITY message; RequestRefusedError, and then nothing has changed.

        A key that is there already gets the new comment and constraints.
        """
        generation = self._generation
        added = await self._software_keys.add(message)
        try:
            if self.lock.locked or generation != self._generation:
                raise RequestRefusedError("the agent was locked or emptied meanwhile")
            if any(isinstance(constraint, SkProvider) for constraint in added.constraints):
                raise RequestRefusedError("a provider for FIDO keys was named, and the key is none")
            self._refuse_if_hidden(client, added.blob)
            key = SoftwareIdentity(
                added.blob, added.comment, self._constraints(added.constraints), self._software_keys
            )
        except RequestRefusedError:
            if not any(held.blob == added.blob for held in self.identities.software_keys()):
                self._software_keys.remove(added.blob)
            raise
        self.identities.add(key)
        self._plan_expiry()
        return key

    async def add_provider(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        """Serve the keys of the provider `name`, a path or a PKCS#11 URI.

        Adding it again looks at the tokens afresh, and replaces the constraints. Raises TokenError or
        RequestRefusedError, and then nothing has changed but for the PIN try that a wrong PIN costs.
        """
        # It goes on to its end when the client hangs up: a PIN must not be wiped in the middle of a login.
        adding = asyncio.create_task(self._add_provider_and_wipe(client, name, pin, constraints))
        adding.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(adding)

    async def _add_provider_and_wipe(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        try:
            await self._add_provider(client, name, pin, constraints)
        finally:
            if pin is not None:
                self.pins.wipe_unless_kept(pin)

    async def _add_provider(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        generation = self._generation
        path, uri = await resolve(name, must_exist=True)
        self._check_allowed(path)
        provider = self._modules.provider(name, path, uri)
        with self._modules.being_added(provider):
            await provider.load(pin)
            if self.lock.locked or generation != self._generation:
                raise RequestRefusedError("the agent was locked or emptied meanwhile")
            added = self._as_added(provider, constraints)
            for held in added.offer.identities:
                self._refuse_if_hidden(client, held.blob)
            self.identities.add(added)
        self._plan_expiry()
        log.info("provider added", extra={"provider": provider.name, "path": path})

    def begin(self) -> None:
        """Serve what the configuration names; until it was looked at, `first_scan_done` is false."""
        self._beginning = asyncio.create_task(self._begin())

    async def _begin(self) -> None:
        await self.certificate_files.look()
        await self.serve_configured()

    def end(self) -> None:
        """Drop everything, for good."""
        if self._beginning is not None:
            self._beginning.cancel()
        self.remove_all()

    @property
    def first_scan_done(self) -> bool:
        """Whether the tokens that are served from the beginning have been looked at."""
        return self._beginning is None or self._beginning.done()

    async def wait_for_first_scan(self) -> None:
        """Wait until that is so, but not for long: the first client may have started the agent, for a key."""
        if self._beginning is not None and not self._beginning.done():
            await asyncio.wait({self._beginning}, timeout=_FIRST_LOOK)

    async def serve_configured(self) -> None:
        """Serve what the configuration names without being asked to, whether its tokens are in or not.

        Also what was removed of it since; what it names no more is served no more. What cannot be served is
        in the log and in nobody's way.
        """
        generation = self._generation
        config = self.options.config
        named: list[Provider] = []
        added: list[Provider] = []
        for name in config.providers():
            refusal: Exception | None = None
            try:
                path, uri = await resolve(ANY_MODULE if name == AUTO else name, must_exist=True)
                self._check_allowed(path)
            except (RequestRefusedError, TokenError) as error:
                refusal = error
            if generation != self._generation or config is not self.options.config:
                return  # everything was removed meanwhile, or the file read again
            if refusal is not None:
                log.info("not served", extra={"provider": name, "why": str(refusal)})
                continue
            provider = self._modules.provider(path if name == AUTO else name, path, uri)
            named.append(provider)
            if not self.identities.has(provider):
                self.identities.add(self._as_configured(provider))
                self._modules.serve_what_is_added()
                log.info("serving what the configuration names", extra={"provider": name, "path": path})
                added.append(provider)
        self.identities.restore_configured(named)
        self._modules.serve_what_is_added()
        await asyncio.gather(*(provider.look() for provider in added))

    async def sign(self, client: Client, request: SignRequest) -> tuple[bytes, Identity]:
        """The signature blob, and the identity that made it; raises ExplainedError, ProtocolError."""
        try:
            return await self._signing.sign(client, request)
        finally:
            if self._expiry is not None or self._anything_expires():
                self._plan_expiry()

    async def remove_provider(self, name: str) -> None:
        """Serve a provider no more; a path means all that was added of that module.

        RequestRefusedError if it was not added.
        """
        path, uri = await resolve(name, must_exist=False)
        whole_module = not is_uri(name)
        found = self.identities.remove_provider(
            lambda provider: provider.module.path == path and (whole_module or provider.uri.same_choice(uri))
        )
        if not found:
            raise RequestRefusedError(f"{path if whole_module else uri} was not added")
        self._modules.serve_what_is_added()
        log.info("provider removed", extra={"provider": path if whole_module else str(uri)})

    def remove_key(self, client: Client, blob: bytes) -> None:
        """Remove one identity wherever it is; RequestRefusedError if the client sees none such."""
        self.drop_expired()
        if not any(client.sees(held.constraints) for held in self.identities.holding(blob)):
            raise unknown_key(blob)
        self.identities.remove(blob, client.sees)
        self._software_keys.keep_only(held.blob for held in self.identities.software_keys())

    def remove_all(self) -> None:
        """Drop every identity, forget every PIN and end every worker."""
        self._generation += 1
        self.identities.clear()
        self._software_keys.clear()
        self.forget_pins()
        self._modules.serve_what_is_added()

    def drop_expired(self) -> None:
        """Drop the identities that have outlived their lifetime."""
        if self.identities.drop_expired():
            log.info("keys expired")
            self._software_keys.keep_only(held.blob for held in self.identities.software_keys())
            self._modules.serve_what_is_added()
        if not self._anything_expires():
            return
        expired = self.pins.expired()
        for token in self.tokens():
            over = token.pin_remembered and not self._modules.adding and self.identities.over(token)
            if over or token.identity in expired:
                token.forget_pin()
                log.info("PIN expired", extra={"token": str(token.identity)})

    def pin_expires_in(self, token: ServedToken) -> float | None:
        """Seconds until the PIN of `token` expires if it is not used before; None if it does not.

        A PIN goes with the token's keys, if their lifetime ends before.
        """
        end = self.pins.expires_at(token.identity)
        left = [] if end is None else [max(0.0, end - boottime())]
        lifetime = self.identities.lifetime_left(token)
        return min(left if lifetime is None else [*left, lifetime], default=None)

    def change_options(self, options: Options) -> None:
        """Go by other options; PINs that are remembered are kept only as long as these say."""
        self.options = options
        self.notices.moment = options.config.touch_notification
        for token in self.tokens():
            token.apply_policy()
        self.drop_expired()
        self._plan_expiry()

    def forget_pins(self) -> int:
        """Forget every PIN and end the logins, but keep serving the keys; how many PINs there were."""
        return sum(token.forget_pin() for token in self.tokens())

    def forget_pins_on(self, event: ForgetOn) -> None:
        """Forget the PINs of the tokens whose settings want that on `event`."""
        for token in self.tokens():
            token.forget_pin_if(event)

    def modules(self) -> list[Module]:
        """The modules in use."""
        return list(self._modules)

    def tokens(self) -> list[ServedToken]:
        """The tokens that are served, in or out."""
        return self._modules.tokens()

    def _seal_all(self) -> None:
        """What the lock calls before it seals: leave nothing usable in any process."""
        self.pins.seal(self._seal)
        self._software_keys.suspend()
        for token in self.tokens():
            token.suspend()

    def _unseal_all(self) -> None:
        self.pins.unseal(self._seal)

    def _constraints(self, constraints: tuple[Constraint, ...]) -> KeyConstraints:
        return KeyConstraints.of(
            constraints, default_lifetime=self.options.default_lifetime, now=self.identities.now()
        )

    def _as_added(self, provider: Provider, constraints: tuple[Constraint, ...]) -> ServedProvider:
        associated = next((given for given in constraints if isinstance(given, AssociatedCerts)), None)
        added = ServedProvider(
            provider,
            self._constraints(constraints),
            Certificates(associated.certs if associated is not None else ()),
            self.certificate_files,
            self._settings_in(provider.module),
            certificates_only=associated is not None and associated.certs_only,
            lifetime_given=any(isinstance(given, Lifetime) for given in constraints),
            added=self.identities.now(),
        )
        if not added.offer.identities:
            raise RequestRefusedError(f"{provider.name}: none of the certificates is for one of its keys")
        return added

    def _as_configured(self, provider: Provider) -> ServedProvider:
        return ServedProvider(
            provider,
            KeyConstraints(),
            Certificates(()),
            self.certificate_files,
            self._settings_in(provider.module),
            added=self.identities.now(),
            configured=True,
        )

    def _settings_in(self, module: Module) -> SettingsFinder:
        return lambda token: self._settings.of(token.identity, module.path)

    def _refuse_if_hidden(self, client: Client, blob: bytes) -> None:
        """A client must not relax the constraints of what it is not shown."""
        if any(not client.sees(held.constraints) for held in self.identities.holding(blob)):
            raise RequestRefusedError(f"key {fingerprint(blob)} is there already, for other destinations")

    def _check_allowed(self, path: str) -> None:
        if not matches_list(path, self.options.provider_patterns):
            raise RequestRefusedError(
                f"{path} is not in the list of allowed modules ({self.options.provider_patterns})",
                "start the agent with -P to allow it",
            )

    def _anything_expires(self) -> bool:
        return self.identities.limited or self.pins.next_expiry() is not None

    def _plan_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        ends = [self.identities.next_expiry()]
        pin_end = self.pins.next_expiry()
        if pin_end is not None:
            ends.append(max(0.0, pin_end - boottime()))
        wait = min((end for end in ends if end is not None), default=None)
        if wait is not None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(min(wait, _LONGEST_SLEEP), self._expire)

    def _expire(self) -> None:
        self.drop_expired()
        self._plan_expiry()
