"""The agent's state (identities, modules, PINs, the lock) and what clients may do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from replug.agent.additions import Additions
from replug.agent.ca.certifying import Certifying
from replug.agent.ca.guests import Guests
from replug.agent.ca.issuing import Issuing
from replug.agent.ca.journal import Journal
from replug.agent.clients.client import Client
from replug.agent.config.options import Options
from replug.agent.config.settings import Settings
from replug.agent.confirmations import Confirmations
from replug.agent.control.refusals import RefusalHistory
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.host_names import HostNames
from replug.agent.key_rules.destinations import Destinations
from replug.agent.keys.certificate_files import CertificateFiles
from replug.agent.keys.changes import Changes
from replug.agent.keys.expiry import Expiry
from replug.agent.keys.first_scan import FirstScan
from replug.agent.keys.identities import Identities
from replug.agent.keys.lock import Lock
from replug.agent.keys.modules import Modules
from replug.agent.keys.providers import Providers
from replug.agent.keys.refusal import unknown_key
from replug.agent.keys.security_keys import SecurityKeys
from replug.agent.keys.software import SoftwareKeys
from replug.agent.keys.token_memory import TokenMemory
from replug.agent.keys.token_settings import TokenSettingsFinder
from replug.agent.listings import Listings
from replug.agent.signing import Signing
from replug.agent.upstreams.upstreams import Upstreams
from replug.token.boottime import boottime
from replug.token.modules.module import Module
from replug.token.offload import Aside
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.pin import PinCache
from replug.token.prompts.no_guests import NoGuestsPrompter
from replug.token.prompts.request import Prompter
from replug.token.seal import Seal
from replug.token.security_keys.authenticators import Authenticators
from replug.token.security_keys.security_key import SecurityKey
from replug.token.serving.served import ServedToken
from replug.token.worker.forking import ForkServer

_MOMENT = 0.05  # seconds
_MOMENTS = 50  # at most, however often cards come and go meanwhile

T = TypeVar("T")


class PinHolder(Protocol):
    """What a PIN may be remembered for: a token, or a key of a FIDO authenticator."""

    def apply_policy(self) -> None:
        """Apply the current policy to the remembered PIN."""

    def forget_pin(self) -> bool:
        """Forget the PIN; whether there was one."""
        ...

    def forget_pin_if(self, event: ForgetOn) -> None:
        """Forget the PIN if that is the policy for `event`."""


class Keyring:
    """The one implementation of `replug.agent.agent.Agent`."""

    def __init__(
        self,
        settings: Settings,
        prompter: Prompter,
        notices: TouchNotices,
        fork_server: ForkServer,
        journal: Journal,
        refusals: RefusalHistory,
        authenticators: Authenticators,
    ) -> None:
        self.settings = settings
        prompter = NoGuestsPrompter(prompter)
        self.changes = Changes(boottime)
        self.certifying = Certifying(settings, journal)
        self.identities = Identities(
            lambda: bool(settings.config.wait_for_token), self.certifying.names, self.changes
        )
        self.destinations = Destinations(self.changes.move)
        self.pins = PinCache(remembered=lambda: self._expiry.plan())
        self.certificate_files = CertificateFiles(settings, self.identities.changed)
        self._seal = Seal()
        self._aside = Aside()
        self._lock = Lock(self._seal, self._seal_all, self._unseal_all)
        self._software_keys = SoftwareKeys(self._seal, fork_server)
        self.security_keys = SecurityKeys(self._seal, self.pins, prompter, settings, authenticators)
        token_settings = TokenSettingsFinder(settings)
        self._token_memory = TokenMemory(settings)
        self._modules = Modules(
            settings,
            token_settings,
            self.pins,
            prompter,
            self.identities,
            fork_server,
            self._token_memory,
        )
        self._providers = Providers(
            settings, token_settings, self.certificate_files, self._modules, self.identities, self._aside
        )
        self._expiry = Expiry(
            self.identities, self._software_keys, self.security_keys, self._modules, self.pins
        )
        self.drop_expired = self._expiry.drop_expired
        self.hosts = HostNames(settings, self._aside).hosts
        self._confirmations = Confirmations(prompter, settings, boottime)
        self.upstreams = Upstreams(settings, self.changes, lambda: self.locked)
        signing = Signing(
            self.identities,
            self.upstreams,
            settings,
            self._confirmations,
            self.certifying,
            notices,
            self.destinations,
            self._aside,
        )
        self.sign = signing.sign
        self.issuing = Issuing(settings, self.identities, self._software_keys, signing, refusals)
        self._guests = Guests(settings)
        self.admit, self.why_no_guests = self._guests.admit, self._guests.why_none
        self._emptied = 0
        """How often everything was removed."""
        additions = Additions(
            settings,
            self.identities,
            self._software_keys,
            self.security_keys,
            self._providers,
            self.pins,
            self._expiry,
            self._seal,
            lambda: self._emptied,
            self.certifying,
        )
        self.add_key, self.add_provider = additions.add_key, additions.add_provider
        self.check_may_add_provider = additions.check_may_add_provider
        self.first_scan = FirstScan(self.modules)
        self._listings = listings = Listings(
            settings,
            self.identities,
            self.certifying,
            self.issuing,
            self._modules,
            self.first_scan,
            self.upstreams,
            self.changes,
            self.destinations,
            lambda: self.locked,
        )
        self.listing, self.listing_takes_long = listings.listing, listings.takes_long
        self.rules_take_long, self.apply_rules = listings.rules_take_long, listings.apply_rules
        self.was_bound, self.at_hand_for = listings.was_bound, listings.at_hand_for

    # For clients, through `Agent`.

    @property
    def locked(self) -> bool:
        return self._seal.is_shut

    @property
    def expects_a_token(self) -> bool:
        return any(module.expects_a_token for module in self._modules)

    async def wait_for_expected(self) -> None:
        for _ in range(_MOMENTS):
            if not self.expects_a_token:
                return
            await asyncio.sleep(_MOMENT)

    def wants_certificate(self, client: Client) -> bool:
        return self.issuing.is_due(client)

    async def certify(self, client: Client) -> None:
        await self.issuing.prepare(client)

    async def remove_provider(self, client: Client, name: str) -> None:
        await self._providers.remove(name, follow_links=not client.remote)

    def remove_key(self, client: Client, blob: bytes) -> None:
        sees = partial(self.certifying.shows, client=client)
        if not any(map(sees, self.identities.holding(blob))):
            raise unknown_key(blob)
        self.identities.remove(blob, sees)
        self.issuing.remove(blob)
        self._software_keys.keep_only(held.blob for held in self.identities.software_keys())
        self.security_keys.keep_only(held.blob for held in self.identities.security_keys())

    def remove_all(self) -> None:
        self._emptied += 1
        self.identities.clear()
        self._providers.forget_added()
        self.issuing.clear()
        self._listings.forget()
        self._software_keys.clear()
        self.security_keys.clear()
        self.forget_pins()
        self._modules.serve_what_is_added()

    async def lock(self, passphrase: bytes | bytearray) -> None:
        await self._lock.lock(passphrase)

    async def unlock(self, client: Client, passphrase: bytes | bytearray) -> None:
        await self._lock.unlock(client.peer.pid, passphrase)

    async def aside(self, call: Callable[[], T]) -> T:
        return await self._aside.run(call)

    # For the service and the commands of `replug`.

    def begin(self) -> None:
        """Start to serve what the configuration names; `first_scan` is done at its end."""
        self.first_scan.begin(self._begin())

    async def _begin(self) -> None:
        await asyncio.gather(self.certificate_files.look(), self.destinations.load())
        await self.serve_configured()

    def end(self) -> None:
        """Drop everything, for good."""
        self.first_scan.cancel()
        self.upstreams.end()
        self.remove_all()

    async def serve_configured(self) -> None:
        """Serve what the configuration names now; stop what only an earlier configuration named."""
        emptied = self._emptied
        await self._token_memory.load()
        await self._providers.serve_configured(lambda: emptied == self._emptied)

    def change_options(self, options: Options) -> None:
        """Follow other options; PINs that are remembered are kept only as long as these say."""
        self.settings.options = options
        self._confirmations.forget()
        for holder in self._pin_holders():
            holder.apply_policy()
        self.upstreams.follow_configuration()
        self.issuing.follow_configuration()
        self._listings.forget()
        self.identities.changed()
        self.drop_expired()
        self._expiry.plan()

    def forget_pins(self) -> int:
        """Forget every yes and PIN, returning how many PINs there were, and end the logins; keys stay."""
        self._confirmations.forget()
        self.pins.keep_none_in_use()
        return sum(holder.forget_pin() for holder in self._pin_holders())

    def forget_pins_on(self, event: ForgetOn) -> None:
        """Forget every yes, and the PINs whose settings want that on `event`."""
        self._confirmations.forget()
        self.pins.keep_none_in_use()  # of which token they are is not always known yet
        for holder in self._pin_holders():
            holder.forget_pin_if(event)

    def pin_expires_in(self, holder: ServedToken | SecurityKey) -> float | None:
        """Seconds until the PIN of `holder` expires if it is not used before; None if it does not."""
        return self._expiry.pin_expires_in(holder)

    def modules(self) -> list[Module]:
        """The modules in use."""
        return list(self._modules)

    def tokens(self) -> list[ServedToken]:
        """The tokens that are served, in or out."""
        return self._modules.tokens()

    def _pin_holders(self) -> list[PinHolder]:
        return [*self.tokens(), *self.security_keys.keys()]

    def _seal_all(self) -> None:
        """Encrypt the PINs, and end the processes that hold PINs or keys; called before the seal is shut."""
        self.changes.move()
        self._confirmations.forget()
        self.issuing.stop()
        self.pins.seal(self._seal)
        self._software_keys.suspend()
        self._software_keys.withdraw_additions()
        self.security_keys.suspend()
        for token in self.tokens():
            token.suspend()

    def _unseal_all(self) -> None:
        self.changes.move()
        self.pins.unseal(self._seal)
