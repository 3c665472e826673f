"""What the agent knows about one connection: the process, and the SSH sessions it is bound to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from replug.agent.clients.peer import Peer
from replug.agent.clients.view import View
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.key_rule import Fit, KeyRule
from replug.agent.keys.constraints import KeyConstraints
from replug.protocol.purpose import Host, Purpose
from replug.protocol.purpose_text import in_lines
from replug.protocol.sessions import Sessions, permitted
from replug.token.prompts.request import Asker
from replug.token.requester import Guest


@dataclass(slots=True)
class ListAtHand:
    """A list of keys as it was sent."""

    frame: bytes = b""
    """Empty if the next one has to be made, whatever has changed."""
    made_at: int = 0
    """The count of changes then."""
    is_shared: bool = False
    """Whether clients that see the same share it: each with its own would fill the memory."""
    until: float = inf
    """When it has to be made again though nothing has changed, in seconds since 1970."""
    since: float = -inf
    """When it was made: before that, the clock was set back, and what is valid now is not what was."""

    def begin(self, changes: int) -> None:
        """It is made of what there is after so many changes, and not sent yet."""
        self.frame, self.made_at, self.until, self.since = b"", changes, inf, time.time()


def give_up(lists: Iterable[ListAtHand]) -> None:
    """Keep these no more: connections that were sent one refer to it as long as they are open."""
    for one in lists:
        one.frame = b""


@dataclass
class Client:
    """A connection, from its beginning to its end."""

    peer: Peer
    sessions: Sessions = field(default_factory=Sessions)
    hosts: tuple[Host, ...] = ()
    """The hosts of those sessions, each with its names as of the session-bind."""
    at_hand: ListAtHand = field(default_factory=ListAtHand)
    """The last list that was sent; those bound to no session share one, as they see the same."""
    ruled_by: Sequence[CertificateRule] | None = None
    """The rules that `rule` was found in; None if it is not known."""
    rule: CertificateRule | None = None
    """The `[[certificate]]` for the host that it logs in at."""
    repository: str | None = None
    """What git wants at that host: a path, empty if it is not git that asks, None if that is not known."""
    placed_by: Sequence[KeyRule] | None = None
    """The rules that `fits` is about; None if it is not known."""
    fits: tuple[Fit, ...] = ()
    """How each `[[key]]` fits the login."""
    guest: Guest | None = field(init=False)
    """Who it is, if not the agent's own user or root: it sees only what is for that guest."""
    guest_rules: Sequence[CertificateRule] = ()
    """The rules that name this guest, when that was looked up last."""
    view: View | None = None
    """The socket that it connected to, if that is for some of the keys."""
    gone: bool = False
    """Whether the connection is over: what it asked last may begin after that, to be cancelled then."""

    def __post_init__(self) -> None:
        self.guest = Guest(self.peer.uid) if self.peer.is_foreign else None

    @property
    def only_uses_keys(self) -> bool:
        """Whether it may list keys, sign with them, and nothing else."""
        return self.guest is not None or self.view is not None

    @property
    def remote(self) -> bool:
        """Whether a session-bind was attempted: it may be forwarded (ssh-agent.c, socket_is_remote).

        So may all that comes over a socket for some of the keys.
        """
        return self.sessions.bind_attempted or self.view is not None

    @property
    def forwarded(self) -> bool:
        """Whether its requests come, or may come, from another host."""
        if self.view is not None:
            return True  # who is there is not known, and binds can say what they like
        return self.sessions.unverified or any(bound.is_forwarding for bound in self.sessions.bindings)

    @property
    def logs_in_at(self) -> Host | None:
        """The host that a program of this machine logs in at; None if it is another connection."""
        return None if self.view is not None else self.only_host

    @property
    def only_host(self) -> Host | None:
        """The host of the only session that it is bound to, if that is a login."""
        bindings = self.sessions.bindings
        one = len(self.hosts) == len(bindings) == 1 and not self.sessions.unverified
        return self.hosts[0] if one and not bindings[0].is_forwarding else None

    def bound(self, sessions: Sessions) -> None:
        """It is bound to these sessions now, or was to be: what it sees is its own, and never at hand."""
        self.sessions = sessions
        self.at_hand = ListAtHand()
        self.ruled_by = self.placed_by = self.repository = None

    def sees(self, constraints: KeyConstraints) -> bool:
        """Whether an identity with these constraints exists for this client."""
        return self.may_use(constraints) and permitted(constraints.destinations, self.sessions)

    def may_use(self, constraints: KeyConstraints) -> bool:
        """Whether an identity with these constraints exists for it, whatever their destinations."""
        if constraints.guest != self.guest or (
            constraints.rule is not None and constraints.rule not in self.guest_rules
        ):
            return False
        if self.view is not None and (constraints.destinations or not self.view.is_open_for(self.only_host)):
            return False  # of a destination's hops nobody here has reported the first
        return not (constraints.here_only and self.forwarded)

    def asker(self, purpose: Purpose) -> Asker:
        """This client, as described to a user who is asked on its behalf."""
        host: bytes | None = b""
        if purpose.forwarded_to:
            # Any program can prove keys that it has just made: those are one origin.
            nearest, *_ = purpose.forwarded_to
            host = nearest.key if nearest.is_known else None
        return Asker(
            self.peer.program,
            self.peer.pid,
            tuple(in_lines(purpose)),
            self.peer.executable,
            None if purpose.unverified or purpose.view else host,
        )
