"""The modules in use. A module is kept while one of its providers is served or being added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from replug.agent.config.settings import Settings
from replug.agent.keys.identities import Identities
from replug.agent.keys.token_settings import TokenSettingsFinder
from replug.token.module import Module
from replug.token.pins.pin import PinCache
from replug.token.prompts.request import Prompter
from replug.token.provider import Provider
from replug.token.served import ServedToken
from replug.token.uri import Uri, is_uri
from replug.token.worker.forking import ForkServer


class Modules:
    """By canonical path. The providers among `identities` decide what a module serves."""

    def __init__(
        self,
        settings: Settings,
        token_settings: TokenSettingsFinder,
        pins: PinCache,
        prompter: Prompter,
        identities: Identities,
        fork_server: ForkServer,
    ) -> None:
        self._settings = settings
        self._token_settings = token_settings
        self._pins = pins
        self._prompter = prompter
        self._identities = identities
        self._fork_server = fork_server
        self._modules: dict[str, Module] = {}
        self._being_added: list[Provider] = []

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))

    def tokens(self) -> list[ServedToken]:
        """The tokens that are served, in or out."""
        return [token for module in self for token in module.tokens.values()]

    def provider(self, name: str, path: str, uri: Uri) -> Provider:
        """The provider that `name` means. Its module stays until `serve_what_is_added` finds it unused."""
        module = self._modules.get(path)
        if module is None:
            config = self._settings.config
            module = self._modules[path] = Module(
                path,
                self._pins,
                self._prompter,
                config.deadlines,
                config.workers_for(path),
                self._token_settings.policies(path),
                self._identities.changed,
                self._fork_server,
            )
        return Provider(name if not is_uri(name) else str(uri), module, uri)

    @property
    def adding(self) -> bool:
        """Whether a provider is being added."""
        return bool(self._being_added)

    @contextmanager
    def being_added(self, provider: Provider) -> Iterator[None]:
        """Have the module serve the provider's tokens while it is loaded, before it is known to be added."""
        self._being_added.append(provider)
        self.serve_what_is_added()
        try:
            yield
        finally:
            self._being_added.remove(provider)
            self.serve_what_is_added()

    def serve_what_is_added(self) -> None:
        """Have each module serve the tokens that its providers choose; drop modules without providers."""
        providers: Iterable[Provider] = [*self._identities.providers(), *self._being_added]
        for path, module in list(self._modules.items()):
            choices = [provider.uri for provider in providers if provider.module is module]
            module.serve(choices)
            if not choices:
                del self._modules[path]
