"""What the agent knows about one connection: the process, and the SSH sessions it is bound to."""

from __future__ import annotations

from dataclasses import dataclass, field

from replug.agent.clients.peer import Peer
from replug.agent.keys.constraints import KeyConstraints
from replug.protocol.purpose import Host, Purpose
from replug.protocol.purpose_text import in_lines
from replug.protocol.sessions import Sessions, permitted
from replug.token.prompts.request import Asker


@dataclass(slots=True)
class ListAtHand:
    """A list of keys as it was sent."""

    frame: bytes = b""
    """Empty if the next one has to be made, whatever has changed."""
    made_at: int = 0
    """The count of changes then."""


@dataclass
class Client:
    """A connection, from its beginning to its end."""

    peer: Peer
    sessions: Sessions = field(default_factory=Sessions)
    hosts: tuple[Host, ...] = ()
    """The hosts of those sessions, each with its names as of the session-bind."""
    at_hand: ListAtHand = field(default_factory=ListAtHand)
    """The last list that was sent; those bound to no session share one, as they see the same."""

    @property
    def remote(self) -> bool:
        """Whether a session-bind was attempted: it may be forwarded (ssh-agent.c, socket_is_remote)."""
        return self.sessions.bind_attempted

    def bound(self, sessions: Sessions) -> None:
        """It is bound to these sessions now, or was to be: what it sees is its own, and never at hand."""
        self.sessions = sessions
        self.at_hand = ListAtHand()

    def sees(self, constraints: KeyConstraints) -> bool:
        """Whether an identity with these constraints exists for this client."""
        return permitted(constraints.destinations, self.sessions)

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
            None if purpose.unverified else host,
        )
