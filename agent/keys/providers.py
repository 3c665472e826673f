"""Adds and removes providers: those that a user adds, and those that the configuration names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from replug.agent.config.model import AUTO
from replug.agent.config.settings import Settings
from replug.agent.keys.certificate_files import CertificateFiles
from replug.agent.keys.certificates import Certificates
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identities import Identities
from replug.agent.keys.identity import Identity
from replug.agent.keys.modules import Modules
from replug.agent.keys.provider_names import ANY_MODULE, resolve, uri_of
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.keys.served_provider import ServedProvider, SettingsFinder
from replug.agent.keys.token_settings import TokenSettingsFinder
from replug.protocol.constraints import AssociatedCerts, Constraint, Lifetime
from replug.protocol.patterns import matches_list
from replug.token.errors import TokenError
from replug.token.module import Module
from replug.token.offload import Aside
from replug.token.pins.pin import Pin
from replug.token.provider import Provider
from replug.token.uri import Uri

log = logging.getLogger(__name__)


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

    async def add(
        self,
        name: str,
        pin: Pin | None,
        constraints: tuple[Constraint, ...],
        may_be_added: Callable[[list[Identity]], None],
    ) -> None:
        """Serve the provider `name`, a path or a PKCS#11 URI, as a user asks.

        `may_be_added` is called with its identities when they are known; if it raises, they are not added.
        Raises TokenError or RequestRefusedError.
        """
        path, uri = await self._resolve(name)
        associated = next((given for given in constraints if isinstance(given, AssociatedCerts)), None)
        certificates = Certificates(())
        if associated is not None:
            certs = associated.certs
            certificates = await self._aside.run(lambda: Certificates(certs))
        provider = self._modules.provider(name, path, uri)
        with self._modules.being_added(provider):
            await provider.load(pin)
            added = self._as_added(provider, constraints, certificates)
            may_be_added([*added.identities])
            if not added.identities:
                raise RequestRefusedError(
                    f"{provider.name}: none of the certificates is for a key of this provider"
                )
            self._identities.add(added)
        log.info("provider added", extra={"provider": provider.name, "path": path})

    async def remove(self, name: str) -> None:
        """Stop serving a provider, RequestRefusedError if it was not added."""
        uri = uri_of(name)
        called = name if uri is None else str(uri)
        # By the name it was added by, if possible: a path on a dead mount takes its time.
        providers = self._identities.providers()
        paths = {one.module.path for one in providers if called in (one.name, one.module.path)}
        if not paths:
            path, _ = await resolve(name, to_remove=True)
            paths = {path}
        found = self._identities.remove_provider(
            lambda one: one.module.path in paths and (uri is None or one.uri.same_choice(uri))
        )
        if not found:
            raise RequestRefusedError(
                f"{called} was not added",
                "see what was added with replug status --json, under providers",
            )
        self._modules.serve_what_is_added()
        log.info("provider removed", extra={"provider": called})

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
            try:
                path, uri = await self._resolve(ANY_MODULE if name == AUTO else name)
            except (RequestRefusedError, TokenError) as error:
                refusal = error
            if config is not self._settings.config or not still_wanted():
                return
            if refusal is not None:
                log.info("not served", extra={"provider": name, "why": str(refusal)})
                continue
            provider = self._modules.provider(path if name == AUTO else name, path, uri)
            named.append(provider)
            if not self._identities.has(provider):
                self._identities.add(self._as_configured(provider))
                self._modules.serve_what_is_added()
                log.info("serving a configured provider", extra={"provider": name, "path": path})
                new.append(provider)
        self._identities.restore_configured(named)
        self._modules.serve_what_is_added()
        await asyncio.gather(*(provider.look() for provider in new))

    async def _resolve(self, name: str) -> tuple[str, Uri]:
        """The module's canonical path and what is chosen of it, if that module may be loaded."""
        path, uri = await resolve(name)
        patterns = self._settings.options.provider_patterns
        if not matches_list(path, patterns):
            raise RequestRefusedError(
                f"{path} is not in the list of allowed modules ({patterns})",
                "start the agent with -P to allow it",
            )
        return path, uri

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
