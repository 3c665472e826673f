"""What clients add: keys and providers, and why some are refused."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

from replug.agent.ca.certifying import Certifying
from replug.agent.clients.client import Client
from replug.agent.config.settings import Settings
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.expiry import Expiry
from replug.agent.keys.identities import Identities
from replug.agent.keys.identity import AddedIdentity, Identity, SecurityKeyIdentity, SoftwareIdentity
from replug.agent.keys.provider_names import is_usual, not_allowed, resolve_library
from replug.agent.keys.providers import Providers
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.keys.security_keys import SecurityKeys
from replug.agent.keys.software import SoftwareKeys
from replug.protocol.additions import KeyAddition
from replug.protocol.constraints import Constraint, RestrictDestination, SkProvider
from replug.protocol.keys import SkPublicKey, fingerprint
from replug.protocol.patterns import matches_list
from replug.protocol.visible_text import visible_path
from replug.token.pins.pin import Pin, PinCache
from replug.token.requester import Program
from replug.token.seal import Seal
from replug.token.security_keys.authenticators import INTERNAL
from replug.token.turns import one_less

_MOST_ADDITIONS = 16
"""Of providers, at the same time and by one program: they go on though their clients are gone."""
_MOST_PROVIDERS = 128
"""Each is looked through at every addition and change, with however few keys: no user has so many."""
_MOST_IDENTITIES = 4096
"""Of all providers, certificates included: each costs at every change, and no client reads so long a list."""
_MOST_DESTINATIONS = 8192
"""Of all keys and providers, and host keys in them: while the garbage collector looks at them, all wait."""


class Additions:
    """Adds keys and providers to `identities`."""

    def __init__(
        self,
        settings: Settings,
        identities: Identities,
        software_keys: SoftwareKeys,
        security_keys: SecurityKeys,
        providers: Providers,
        pins: PinCache,
        expiry: Expiry,
        seal: Seal,
        emptied: Callable[[], int],
        certifying: Certifying,
    ) -> None:
        """`emptied` returns how often everything was removed."""
        self._settings = settings
        self._identities = identities
        self._software_keys = software_keys
        self._security_keys = security_keys
        self._providers = providers
        self._pins = pins
        self._expiry = expiry
        self._seal = seal
        self._emptied = emptied
        self._certifying = certifying
        self._adding: Counter[tuple[Program | None, bool]] = Counter()
        """How many providers are being added, by the program that asks and whether they are usual ones."""

    async def add_key(self, client: Client, addition: KeyAddition) -> None:
        """As `Agent.add_key`."""
        given = next((one for one in addition.constraints if isinstance(one, SkProvider)), None)
        if isinstance(addition.public, SkPublicKey):
            added = await self._add_security_key(client, addition, addition.public, given)
        elif given is not None:
            # Before a process has it: to take it back would end that process.
            raise RequestRefusedError("a provider for FIDO keys was named, and the key is none")
        else:
            added = await self._add_software_key(client, addition)
        self._identities.add(added)
        self._expiry.plan()

    async def _add_software_key(self, client: Client, addition: KeyAddition) -> AddedIdentity:
        emptied = self._emptied()
        self._refuse_if_hidden(client, addition.blob)
        self._refuse_too_many_destinations(addition.constraints)
        await self._software_keys.add(addition)
        try:
            self._refuse_if_changed_since(emptied)
            self._refuse_if_hidden(client, addition.blob)
        except RequestRefusedError:
            if not any(held.blob == addition.blob for held in self._identities.software_keys()):
                self._software_keys.remove(addition.blob)
            raise
        constraints = self._constraints(addition)
        return SoftwareIdentity(addition.blob, addition.comment, constraints, self._software_keys)

    async def _add_security_key(
        self, client: Client, addition: KeyAddition, public: SkPublicKey, given: SkProvider | None
    ) -> AddedIdentity:
        emptied = self._emptied()
        if given is None:
            raise RequestRefusedError(
                "no library was named that speaks to the security key of this key",
                "name it with ssh-add -S; ssh-add -S internal is OpenSSH's own",
            )
        provider = await self._sk_provider(client, os.fsdecode(given.path))
        self._refuse_if_changed_since(emptied)
        self._refuse_if_hidden(client, addition.blob)
        self._refuse_too_many_destinations(addition.constraints)
        self._security_keys.add(addition, public, provider)
        if not client.remote:
            self._security_keys.begin_again(provider)
        constraints = self._constraints(addition)
        return SecurityKeyIdentity(
            addition.blob, addition.comment, constraints, self._security_keys, public, provider
        )

    async def _sk_provider(self, client: Client, name: str) -> str:
        """The canonical path of the library; `INTERNAL` for the helper's own [process_add_identity]."""
        if name.lower() == INTERNAL:
            return INTERNAL
        if client.remote and not self._settings.options.allow_remote_pkcs11:
            raise RequestRefusedError(
                "a forwarded connection may not name a library for security keys",
                "start the agent with -O allow-remote-pkcs11 to allow it",
            )
        path = await resolve_library(name)
        patterns = self._settings.options.provider_patterns
        if not matches_list(path, patterns):
            raise not_allowed(visible_path(path), patterns)
        return path

    def _constraints(self, addition: KeyAddition) -> KeyConstraints:
        return KeyConstraints.of(
            addition.constraints,
            default_lifetime=self._settings.options.default_lifetime,
            now=self._identities.now(),
        )

    def check_may_add_provider(self, client: Client) -> None:
        """As `Agent.check_may_add_provider`."""
        if client.remote and not self._settings.options.allow_remote_pkcs11:
            raise RequestRefusedError(
                "a forwarded connection may not load PKCS#11 modules",
                "start the agent with -O allow-remote-pkcs11 to allow it",
            )

    async def add_provider(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        """As `Agent.add_provider`."""
        try:
            self._refuse_too_many_destinations(constraints)
            kind = self._kind_of_addition(client, name)
        except RequestRefusedError:
            if pin is not None:
                pin.wipe()
            raise
        self._adding[kind] += 1
        # It goes on to its end when the client hangs up: a PIN must not be wiped in the middle of a login.
        adding = asyncio.create_task(self._add_provider(client, name, pin, constraints))

        def ended(task: asyncio.Task[None]) -> None:
            one_less(self._adding, kind)
            task.cancelled() or task.exception()

        adding.add_done_callback(ended)
        await asyncio.shield(adding)

    def _kind_of_addition(self, client: Client, name: str) -> tuple[Program | None, bool]:
        """What it counts as; RequestRefusedError if there are too many."""
        count = len(self._identities.providers())
        if count >= _MOST_PROVIDERS:
            raise RequestRefusedError(
                f"the agent serves {count} providers already", "remove some (ssh-add -e)"
            )
        # Those that wait for a file system are not to keep out those that do not.
        kind = client.peer.requester.program, is_usual(name, self._settings.options.provider_patterns)
        if self._adding[kind] >= _MOST_ADDITIONS:
            raise RequestRefusedError(f"{_MOST_ADDITIONS} additions of the same program have not ended")
        return kind

    async def _add_provider(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        emptied = self._emptied()

        def may_be_added(identities: list[Identity]) -> None:
            self._refuse_if_changed_since(emptied)
            if self._identities.count + len(identities) > _MOST_IDENTITIES:
                raise RequestRefusedError(
                    f"the agent holds {self._identities.count} keys already", "remove some (ssh-add -d or -e)"
                )
            for held in identities:
                self._refuse_if_hidden(client, held.blob)

        with nullcontext() if pin is None else self._pins.using(pin):
            await self._providers.add(name, pin, constraints, may_be_added)
        self._expiry.plan()

    def _refuse_too_many_destinations(self, added: tuple[Constraint, ...]) -> None:
        restrictions = (one for one in added if isinstance(one, RestrictDestination))
        new = sum(destination.size for one in restrictions for destination in one.constraints)
        kept = self._identities.kept_destinations if new else 0
        if kept + new > _MOST_DESTINATIONS:
            raise RequestRefusedError(
                f"the agent keeps {kept} destinations and host keys already", "remove some (ssh-add -d or -e)"
            )

    def _refuse_if_changed_since(self, emptied: int) -> None:
        if self._seal.is_shut or emptied != self._emptied():
            raise RequestRefusedError("the agent was locked or emptied meanwhile")

    def _refuse_if_hidden(self, client: Client, blob: bytes) -> None:
        """A client must not relax the constraints of a key it cannot see."""
        for held in self._identities.holding(blob):
            if not self._certifying.shows(held, client):
                why = "as a CA key" if self._certifying.names(held) else "for other destinations"
                raise RequestRefusedError(f"key {fingerprint(blob)} is there already, {why}")
