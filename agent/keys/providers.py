"""Adds and removes providers: those that a user adds, and those that the configuration names."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from replug.agent.config.model import AUTO
from replug.agent.config.settings import Settings
from replug.agent.keys.certificate_files import CertificateFiles
from replug.agent.keys.certificates import Certificates
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identities import Identities
from replug.agent.keys.identity import Identity
from replug.agent.keys.modules import Modules
from replug.agent.keys.provider_names import not_allowed, registered, resolve, resolve_to_remove, uri_of
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.keys.served_provider import ServedProvider, SettingsFinder
from replug.agent.keys.token_settings import TokenSettingsFinder
from replug.protocol.constraints import AssociatedCerts, Constraint, Lifetime
from replug.protocol.patterns import matches_list
from replug.protocol.visible_text import visible_path
from replug.token.errors import TokenError, clauses
from replug.token.modules.module import Module
from replug.token.modules.provider import Provider
from replug.token.names.p11kit import LeftOut, ModuleSource, Why
from replug.token.names.uri import Uri
from replug.token.offload import Aside
from replug.token.pins.pin import Pin

log = logging.getLogger(__name__)

_ALL_TOKENS = "pkcs11:"
_MOST_ADDED = 256
"""Of which it is remembered that they were added, once their lifetime has ended."""


class _Added(NamedTuple):
    """A provider: the name that it was added by, its module's path, and what is chosen of that."""

    name: str
    path: str
    uri: Uri


class Providers:
    """Adds providers to `identities` and removes them, and keeps `modules` up to date with them."""

    def __init__(
        self,
        settings: Settings,
        token_settings: TokenSettingsFinder,
        certificate_files: CertificateFiles,
        modules: Modules,
        identities: Identities,
        aside: Aside,
    ) -> None:
        self._aside = aside
        self._settings = settings
        self._token_settings = token_settings
        self._certificate_files = certificate_files
        self._modules = modules
        self._identities = identities
        self._added: deque[_Added] = deque(maxlen=_MOST_ADDED)
        """What users have added and nobody has removed, whether its lifetime has ended or not."""

    async def add(
        self,
        name: str,
        pin: Pin | None,
        constraints: tuple[Constraint, ...],
        may_be_added: Callable[[list[Identity]], None],
    ) -> None:
        """Serve the provider `name`, a path or a PKCS#11 URI, as a user asks.

        A URI that names no module is served of every module that shows such a token. `may_be_added` is called
        with the identities when they are known; if it raises, they are not added. Raises TokenError or
        RequestRefusedError.
        """
        sources, uri = await self._resolve(name)
        associated = next((given for given in constraints if isinstance(given, AssociatedCerts)), None)
        certificates = Certificates(())
        if associated is not None:
            certs = associated.certs
            certificates = await self._aside.run(lambda: Certificates(certs))
        providers = [self._modules.provider(name, source, uri) for source in sources]
        with self._modules.being_added(providers):
            failures: list[TokenError | RequestRefusedError] = []
            is_added = False
            for provider, its_pin in await self._found(providers, pin):
                try:
                    await provider.load(its_pin)
                    if uri.pin_only is None:
                        self._add(self._as_added(provider, constraints, certificates), may_be_added)
                    else:
                        may_be_added([])
                        self._check_given(provider)
                    is_added = True
                except (TokenError, RequestRefusedError) as error:
                    # A PIN that came with the request decides; of the others each may be of use alone.
                    if its_pin is not None or len(providers) == 1:
                        raise
                    failures.append(error)
                    log.info("not served", extra={"provider": provider.shown, "why": str(error)})
            if not is_added:
                raise failures[0]

    def _add(self, added: ServedProvider, may_be_added: Callable[[list[Identity]], None]) -> None:
        may_be_added([*added.identities])
        provider = added.provider
        if not added.identities:
            raise RequestRefusedError(
                f"{provider.shown}: none of the certificates is for a key of this provider"
            )
        self._identities.add(added)
        its = _Added(provider.name, provider.module.path, provider.uri)
        if its not in self._added:
            self._added.append(its)
        log.info(
            "provider added",
            extra={"provider": provider.shown, "path": provider.module.path},
        )

    def _check_given(self, provider: Provider) -> None:
        """RequestRefusedError if nothing serves its tokens, or has their PIN now."""
        served = [token for token in provider.present if self._identities.on(token)]
        if not served:
            raise RequestRefusedError(f"{provider.shown} is not served", "add it with ssh-add -s")
        if not any(token.pin_remembered for token in served):
            raise RequestRefusedError(f"{provider.shown}: no PIN was entered, or it is not for one token")

    async def _found(
        self, providers: Sequence[Provider], pin: Pin | None
    ) -> list[tuple[Provider, Pin | None]]:
        """The providers with such a token in a slot, each with the PIN if it is for that one; TokenError.

        Of several modules the PIN goes to the only one with a token that requires a login, else to none.
        """
        if len(providers) == 1:
            return [(providers[0], pin)]
        await asyncio.gather(*(provider.look() for provider in providers))
        found = [provider for provider in providers if provider.present]
        if not found:
            # A token that was initialised a moment ago shows only to a fresh process.
            await asyncio.gather(*(provider.look(fresh=True) for provider in providers))
            found = [provider for provider in providers if provider.present]
        if not found:
            paths = ", ".join(provider.module.path for provider in providers)
            raise TokenError(
                f"{providers[0].shown}: no such token is present at any registered module ({paths})",
                "plug it in, or check the name",
            )
        owners = [one for one in found if any(token.wants_login for token in one.present)]
        if pin is not None and len(owners) != 1:
            log.warning(
                "the PIN was used for none of several modules",
                extra={"provider": found[0].shown},
            )
        owner = owners[0] if len(owners) == 1 else None
        # The one with the PIN comes first: if that is wrong, nothing is added.
        found.sort(key=lambda provider: provider is not owner)
        return [(provider, pin if provider is owner else None) for provider in found]

    async def remove(self, name: str, *, follow_links: bool) -> None:
        """Stop serving a provider, RequestRefusedError if it was not added; one may have expired since.

        Without `follow_links` a path is compared as it is.
        """
        uri = uri_of(name)
        called = name if uri is None else str(uri)
        # By the name it was added by, if possible: a path on a dead mount takes its time.
        served = (_Added(one.name, one.module.path, one.uri) for one in self._identities.providers())
        paths = {one.path for one in (*served, *self._added) if called in (one.name, one.path)}
        if not paths and follow_links:
            paths = {*(await resolve_to_remove(name))[0]}

        def is_meant(path: str, its_uri: Uri) -> bool:
            return path in paths and (uri is None or its_uri.same_choice(uri))

        found = self._identities.remove_provider(lambda one: is_meant(one.module.path, one.uri))
        others = [one for one in self._added if not is_meant(one.path, one.uri)]
        if len(others) < len(self._added):
            found = True
            self._added = deque(others, _MOST_ADDED)
        if not found:
            raise RequestRefusedError(
                f"{visible_path(called)} was not added",
                "see what was added with replug status --json, under providers",
            )
        self._modules.serve_what_is_added()
        log.info("provider removed", extra={"provider": visible_path(called)})

    def forget_added(self) -> None:
        """Everything was removed: nothing that was added is there to be removed."""
        self._added.clear()

    async def serve_configured(self, still_wanted: Callable[[], bool]) -> None:
        """Serve the providers that the configuration names, and stop those that only an earlier one named.

        Their tokens need not be in. Identities that were removed return. A provider that cannot be served is
        logged and skipped. Ends early if `still_wanted` returns false.
        """
        config = self._settings.config
        named: list[Provider] = []
        new: list[Provider] = []
        for name in config.providers():
            refusal: Exception | None = None
            meant: list[tuple[str, ModuleSource, Uri]] = []
            try:
                meant = await self._meant(name)
            except (RequestRefusedError, TokenError) as error:
                refusal = error
            if config is not self._settings.config or not still_wanted():
                return
            if refusal is not None:
                log.info("not served", extra={"provider": visible_path(name), "why": str(refusal)})
            for called, source, uri in meant:
                provider = self._modules.provider(called, source, uri)
                named.append(provider)
                if not self._identities.has(provider):
                    self._identities.add(self._as_configured(provider))
                    self._modules.serve_what_is_added()
                    log.info(
                        "serving a configured provider",
                        extra={"provider": visible_path(name), "path": source.path},
                    )
                    new.append(provider)
        self._identities.restore_configured(named)
        self._modules.serve_what_is_added()
        await asyncio.gather(*(provider.look() for provider in new))

    async def _meant(self, name: str) -> list[tuple[str, ModuleSource, Uri]]:
        """The providers that the configuration means by `name`, and what each is called."""
        if name != AUTO:
            sources, uri = await self._resolve(name)
            return [(name, source, uri) for source in sources]
        registry = await registered()
        for left_out in registry.left_out:
            _say_left_out(left_out)
        names = {one.source: one.name for one in registry.modules if one.source.is_remote}
        sources, uri = await self._resolve(_ALL_TOKENS)
        return [
            # The path would not tell remote modules from each other.
            (_ALL_TOKENS, source, replace(uri, module_name=names[source]))
            if source in names
            else (source.path, source, uri)
            for source in sources
        ]

    async def _resolve(self, name: str) -> tuple[list[ModuleSource], Uri]:
        """The modules that `name` may mean and that may be loaded, and what is chosen of them."""
        patterns = self._settings.options.provider_patterns
        sources, uri = await resolve(name, patterns)
        allowed = [source for source in sources if matches_list(source.path, patterns)]
        for source in sources:
            if source not in allowed:
                refusal = not_allowed(source.path, patterns)
                if not allowed:
                    raise refusal
                log.info("not served", extra={"provider": visible_path(name), "why": str(refusal)})
        return allowed, uri

    def _as_added(
        self, provider: Provider, constraints: tuple[Constraint, ...], certificates: Certificates
    ) -> ServedProvider:
        associated = next((given for given in constraints if isinstance(given, AssociatedCerts)), None)
        default_lifetime = self._settings.options.default_lifetime
        now = self._identities.now()
        return ServedProvider(
            provider,
            KeyConstraints.of(constraints, default_lifetime=default_lifetime, now=now),
            certificates,
            self._certificate_files,
            self._settings_in(provider.module),
            certificates_only=associated is not None and associated.certs_only,
            lifetime_given=any(isinstance(given, Lifetime) for given in constraints),
            added=now,
        )

    def _as_configured(self, provider: Provider) -> ServedProvider:
        return ServedProvider(
            provider,
            KeyConstraints(),
            Certificates(()),
            self._certificate_files,
            self._settings_in(provider.module),
            added=self._identities.now(),
            configured=True,
        )

    def _settings_in(self, module: Module) -> SettingsFinder:
        return lambda token: self._token_settings.of(token.identity, module.path)


def _say_left_out(left_out: LeftOut) -> None:
    # p11-kit would load no module at all when a critical one fails; here each has a process of its own.
    level = logging.WARNING if left_out.critical else logging.INFO
    if left_out.why is not Why.PROBLEM:
        level = logging.DEBUG
    fields = {"registered": left_out.name, "why": clauses(left_out.reason, left_out.next_step)}
    log.log(level, "a registered module is left out", extra=fields)
