"""The modules in use. A module is kept while one of its providers is served or being added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from replug.agent.config.settings import Settings
from replug.agent.keys.identities import Identities
from replug.agent.keys.token_memory import TokenMemory
from replug.agent.keys.token_settings import TokenSettingsFinder
from replug.token.modules.module import Module
from replug.token.modules.provider import Provider
from replug.token.names.p11kit import ModuleSource
from replug.token.names.uri import Uri, is_uri
from replug.token.pins.pin import PinCache
from replug.token.prompts.request import Prompter
from replug.token.serving.served import ServedToken
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.forking import ForkServer


class Modules:
    """By source. The providers among `identities` decide what a module serves."""

    def __init__(
        self,
        settings: Settings,
        token_settings: TokenSettingsFinder,
        pins: PinCache,
        prompter: Prompter,
        identities: Identities,
        fork_server: ForkServer,
        memory: TokenMemory,
    ) -> None:
        self._settings = settings
        self._token_settings = token_settings
        self._pins = pins
        self._prompter = prompter
        self._identities = identities
        self._fork_server = fork_server
        self._memory = memory
        self._cards = CardTurns()
        self._modules: dict[ModuleSource, Module] = {}
        self._being_added: list[Sequence[Provider]] = []

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))

    def tokens(self) -> list[ServedToken]:
        """The tokens that are served, in or out."""
        return [token for module in self for token in module.tokens.values()]

    def provider(self, name: str, source: ModuleSource, uri: Uri) -> Provider:
        """The provider that `name` means. Its module stays until `serve_what_is_added` finds it unused."""
        module = self._modules.get(source)
        if module is None:
            config, path = self._settings.config, source.path
            module = self._modules[source] = Module(
                path,
                self._pins,
                self._prompter,
                config.deadlines,
                config.workers_for(path),
                self._token_settings.policies(path),
                self._changed,
                self._fork_server,
                self._cards,
                source.arguments,
            )
        return Provider(name if not is_uri(name) else str(uri), module, uri)

    @property
    def adding(self) -> bool:
        """Whether providers are being added."""
        return bool(self._being_added)

    @contextmanager
    def being_added(self, providers: Sequence[Provider]) -> Iterator[None]:
        """Serve the providers' tokens while these are loaded, before they are known to be added."""
        self._being_added.append(providers)
        self.serve_what_is_added()
        try:
            yield
        finally:
            self._being_added.remove(providers)
            self.serve_what_is_added()

    def serve_what_is_added(self) -> None:
        """Have each module serve the tokens that its providers choose; drop modules without providers."""
        providers: Iterable[Provider] = [*self._identities.providers(), *chain(*self._being_added)]
        for source, module in list(self._modules.items()):
            choices = [provider.uri for provider in providers if provider.module is module]
            module.serve(choices)
            for remembered in self._memory.of(source) if choices else ():
                module.recall(remembered.identity, remembered.keys, remembered.hidden)
            if not choices:
                del self._modules[source]

    def _changed(self) -> None:
        self._identities.changed()
        self._memory.note(
            (source, token) for source, module in self._modules.items() for token in module.tokens.values()
        )
