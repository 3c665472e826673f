"""The operations that clients can request: the interface between the handlers and the keyring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from replug.agent.clients.client import Client
from replug.agent.keys.changes import Changes
from replug.agent.keys.first_scan import FirstScan
from replug.agent.signing import Signed
from replug.agent.upstreams.upstreams import Upstreams
from replug.protocol.additions import KeyAddition
from replug.protocol.constraints import Constraint
from replug.protocol.messages import IdentitiesAnswer, SignRequest
from replug.protocol.purpose import Host
from replug.token.pins.pin import Pin

T = TypeVar("T")


class Agent(Protocol):
    """One method for each request. A refusal raises an ExplainedError and has changed nothing."""

    changes: Changes
    """Of what clients are listed."""
    upstreams: Upstreams
    """Other agents, which are asked for keys, too."""

    @property
    def locked(self) -> bool:
        """Whether `ssh-add -X` has to come first."""

    first_scan: FirstScan
    """Of the tokens that are served from the beginning."""

    @property
    def expects_a_token(self) -> bool:
        """Whether a card was just inserted, and is not read yet, that may be a token that is missed."""

    async def wait_for_expected(self) -> None:
        """Wait until none is expected any more, which takes two seconds at most."""

    def drop_expired(self) -> None:
        """Drop the identities and forget the PINs whose lifetime has ended."""

    def listing(self, client: Client) -> IdentitiesAnswer:
        """The identities that `client` sees. This is public data in memory; no token is asked."""

    def listing_takes_long(self, client: Client) -> bool:
        """Whether to make the listing is something for `aside`."""

    async def admit(self, client: Client) -> None:
        """Note who a client of another user is, before each request; refuse who is no guest (now)."""

    async def was_bound(self, client: Client) -> None:
        """Find out now what its list of keys depends on besides its hosts; takes a fraction of a second."""

    def wants_certificate(self, client: Client) -> bool:
        """Whether a certificate is to be made for the client before it is listed its keys, if not locked."""

    async def certify(self, client: Client) -> None:
        """Make it, if that is possible; takes 90 seconds at most."""

    def rules_take_long(self, client: Client) -> bool:
        """Whether there are so many keys that `apply_rules` comes before `listing`, if not locked."""

    async def apply_rules(self, client: Client) -> None:
        """Find out which rules are about the keys that the client may see."""

    async def sign(self, client: Client, request: SignRequest) -> Signed:
        """Sign the request's data. Raises SignRefusedError, also for flags that are not supported."""

    async def hosts(self, client: Client, keys: Sequence[bytes]) -> tuple[Host, ...]:
        """The hosts with these keys, by known_hosts as it is now; takes a second at most."""

    async def add_key(self, client: Client, addition: KeyAddition) -> None:
        """Hold a private key; one that is there already gets the new comment and constraints."""

    def check_may_add_provider(self, client: Client) -> None:
        """Refuse clients that may not load modules, whatever their request says."""

    async def add_provider(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        """Serve the keys of the provider `name`, a path or a PKCS#11 URI; wipes `pin` unless it is kept.

        Adding it again reads the tokens again and replaces the constraints. A wrong PIN costs its try.
        """

    async def remove_provider(self, client: Client, name: str) -> None:
        """Stop serving the provider `name`; a path stops every provider of that module.

        For a forwarded client the name is compared as it is, and no file system of this machine asked.
        """

    def remove_key(self, client: Client, blob: bytes) -> None:
        """Remove one identity, from the agent's memory and from every provider, if the client sees it."""

    def remove_all(self) -> None:
        """Drop every identity, forget every PIN and end every worker."""

    async def lock(self, passphrase: bytes | bytearray) -> None:
        """Lock with a passphrase that is not empty."""

    async def unlock(self, client: Client, passphrase: bytes | bytearray) -> None:
        """Unlock with the passphrase of `lock`."""

    async def aside(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises, computed beside the event loop: it takes more than a millisecond."""
