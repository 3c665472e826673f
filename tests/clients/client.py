"""What a client of an agent is to us: it brings a document from a host on which one key opens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from clients.user import FIDO, FORWARDED, KEYS, ONE_OF_EACH_PLACE, RESTRICTED, Key, Visit
from rigs.sshd import USER

SOURCES = Path(__file__).parent / "sources"

PROVES_NO_HOST = {RESTRICTED: "it does not prove to the agent which host it logs in at"}
READS_NO_FIDO_KEY = {**PROVES_NO_HOST, FIDO: "it leaves keys of this type out"}
ENDS_AT_FIDO_KEY = {
    **PROVES_NO_HOST,
    FIDO: "it ends when it comes to a key of this type, so no key behind one is of use to it",
}


class Client(ABC):
    """A program, or a library that one of ours in `sources/` uses."""

    title: str
    """What the table calls it."""
    packages: Sequence[str] = ()
    """The Debian packages whose versions the table names."""
    cannot: Mapping[str, str] = {}
    """The places of keys that it cannot use, with any agent, and why."""
    forwards = False
    """Whether it is tried with forwarding the agent."""
    by_ssh = False
    """Whether it runs OpenSSH's ssh."""

    @property
    def keys(self) -> Sequence[Key]:
        """The keys that it is tried with."""
        keys = ONE_OF_EACH_PLACE if self.by_ssh else KEYS
        return [key for key in keys if self.forwards or key.place != FORWARDED]

    def prepare(self, folder: Path) -> None:  # noqa: B027, most need nothing
        """Makes what it needs, in an empty folder."""

    @abstractmethod
    def bring(self, visit: Visit) -> str:
        """The document, fetched with the key of this visit.

        Raises RefusedError if the program that does it says that it could not.
        """

    def version(self) -> str:
        """Its name and version, if it is not from Debian."""
        return ""


class Login(Client):
    """One of our programs: `argv PORT USER COMMAND`, with -A behind it if it is to forward the agent."""

    argv: Sequence[str | Path]

    def bring(self, visit: Visit) -> str:
        return visit.run(*self.argv, str(visit.port), USER, visit.command, *visit.forwarding).out
