"""What clients can ask of the agent: the interface between the handlers and the state behind them."""

from __future__ import annotations

from typing import Protocol

from replug.agent.clients.client import Client
from replug.agent.keys.identity import Identity
from replug.agent.signing import Signed
from replug.protocol.constraints import Constraint
from replug.protocol.messages import IdentitiesAnswer, SignRequest
from replug.token.pins.pin import Pin


class Agent(Protocol):
    """One method for each request. A refusal is an ExplainedError, and then nothing has changed."""

    @property
    def locked(self) -> bool:
        """Whether `ssh-add -X` has to come first."""

    @property
    def first_scan_done(self) -> bool:
        """Whether the tokens that are served from the beginning have been read."""

    async def wait_for_first_scan(self) -> None:
        """Return when they have been, or after some seconds: the first client may have started the agent."""

    def drop_expired(self) -> None:
        """Drop the identities and forget the PINs whose lifetime has ended."""

    def listing(self, client: Client) -> IdentitiesAnswer:
        """What `client` sees; public data that is at hand, so no token is asked."""

    async def sign(self, client: Client, request: SignRequest) -> Signed:
        """Sign what is asked for; SignRefusedError, for flags too."""

    async def read_host_names(self) -> None:
        """Read known_hosts again if it has changed; takes half a second at most."""

    async def add_key(self, client: Client, message: bytearray) -> Identity:
        """Hold the private key of an ADD_IDENTITY message.

        A key that is there already gets the new comment and constraints.
        """

    def check_may_add_provider(self, client: Client) -> None:
        """Refuse clients that may not load modules, whatever their request says."""

    async def add_provider(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        """Serve the keys of the provider `name`, a path or a PKCS#11 URI; wipes `pin` unless it is kept.

        Adding it again reads the tokens again and replaces the constraints. A wrong PIN costs its try.
        """

    async def remove_provider(self, name: str) -> None:
        """Stop serving a provider; a path means all that was added of that module."""

    def remove_key(self, client: Client, blob: bytes) -> None:
        """Remove one identity wherever it is, if the client sees it."""

    def remove_all(self) -> None:
        """Drop every identity, forget every PIN and end every worker."""

    async def lock(self, passphrase: bytes | bytearray) -> None:
        """Lock with a passphrase that is not empty."""

    async def unlock(self, passphrase: bytes | bytearray) -> None:
        """Unlock with the passphrase of `lock`."""
