"""The hosts of a connection's sessions, with the names that known_hosts has for their keys."""

from __future__ import annotations

from collections.abc import Sequence

from replug.agent.clients.client import Client
from replug.agent.clients.command_line import command_line
from replug.agent.clients.named_hosts import possible_names
from replug.agent.config.host_match import exact_names
from replug.agent.config.settings import Settings
from replug.agent.keys.known_host_names import KnownHostNames, default_files
from replug.protocol.purpose import Host
from replug.token.offload import Aside


class HostNames:
    """Finds hosts by their keys; what takes longer is computed by `aside`."""

    def __init__(self, settings: Settings, aside: Aside) -> None:
        self._settings = settings
        self._aside = aside
        self._known = KnownHostNames(default_files)

    async def hosts(self, client: Client, keys: Sequence[bytes]) -> tuple[Host, ...]:
        """The hosts with these keys, by known_hosts as it is now; takes a second at most.

        For rules about hosts, names are looked for among the hashed ones: those in the rules, and those on
        the command line of the client.
        """
        await self._known.look()
        hosts = await self._hosts(keys, [])
        ruled = self._settings.config.ruled_hosts
        if ruled and any(host.known is not None and host.known.hashed for host in hosts):
            command = await command_line(client.peer.pid) or ()
            return await self._hosts(keys, possible_names(command, exact_names(ruled)))
        return hosts

    async def _hosts(self, keys: Sequence[bytes], candidates: Sequence[str]) -> tuple[Host, ...]:
        known_as = self._known.known_as
        # A certificate's names are compared with all that known_hosts says of its CA.
        # Rules look at every name of the host of a login. Else no more is kept than is shown.
        every = len(keys) == 1 and bool(self._settings.config.ruled_hosts)
        return await self._aside.run(
            lambda: tuple(Host(key, known_as(key, candidates, every=every)) for key in keys)
        )
