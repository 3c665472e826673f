"""systemd-logind, for a machine that neither sleeps nor has a screen."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass

from jeepney.fds import FileDescriptor
from rigs.message_bus import BusService, RefusedError

MANAGER = "/org/freedesktop/login1"
SESSION = "org.freedesktop.login1.Session"
NOBODY = 65534


@dataclass
class Session:
    """A session: whose, and whether its screen is locked."""

    uid: int
    locked: bool = False


class Inhibitor:
    """A lock that was handed out; its holder has the other end of a pipe."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self.arguments = arguments
        self._ours, self.theirs = os.pipe()

    @property
    def held(self) -> bool:
        """Whether its holder has not closed it."""
        poll = select.poll()
        poll.register(self._ours, 0)
        return not poll.poll(0)

    def close(self) -> None:
        os.close(self._ours)


class Logind(BusService):
    """org.freedesktop.login1, as far as it is asked."""

    name = "org.freedesktop.login1"
    mine = f"{MANAGER}/session/_31"
    another_of_mine = f"{MANAGER}/session/c2"
    others = f"{MANAGER}/session/_33"

    def __init__(self, address: str) -> None:
        self.sessions = {
            self.mine: Session(os.getuid()),
            self.another_of_mine: Session(os.getuid()),
            self.others: Session(NOBODY),
        }
        self.inhibitors: list[Inhibitor] = []
        """All that were ever taken."""
        self.asked: list[str] = []
        """The methods and properties that were asked for."""
        self.about_to_sleep = False
        self.refusing_locks = False
        super().__init__(address)

    def answer(self, path, interface, method, arguments):
        if (interface, method) == ("org.freedesktop.DBus.Properties", "Get"):
            self.asked.append(arguments[1])
            return self._property(path, *arguments)
        assert (path, interface) == (MANAGER, "org.freedesktop.login1.Manager")
        self.asked.append(method)
        match method:
            case "Inhibit" if self.refusing_locks or self.about_to_sleep:
                raise RefusedError("Access denied")
            case "Inhibit":
                self.inhibitors.append(Inhibitor(arguments))
                return "h", (FileDescriptor(self.inhibitors[-1].theirs),)
            case "ListSessions":
                rows = [("1", it.uid, "name", "seat0", path) for path, it in self.sessions.items()]
                return "a(susso)", (rows,)
        raise RefusedError(f"no method {method}")

    def _property(self, path: str, interface: str, name: str) -> tuple[str, tuple]:
        if (path, name) == (MANAGER, "PreparingForSleep"):
            return "v", (("b", self.about_to_sleep),)
        if interface != SESSION or path not in self.sessions:
            raise RefusedError(f"no object {path}")
        session = self.sessions[path]
        match name:
            case "User":
                return "v", (("(uo)", (session.uid, f"{MANAGER}/user/_{session.uid}")),)
            case "LockedHint":
                return "v", (("b", session.locked),)
        raise RefusedError(f"no property {name}")

    @property
    def held(self) -> int:
        """How many locks are held now."""
        return sum(inhibitor.held for inhibitor in self.inhibitors)

    def prepare_for_sleep(self, start: bool) -> None:
        """The machine is about to sleep, or has woken up."""
        self.about_to_sleep = start
        self.emit(MANAGER, "org.freedesktop.login1.Manager", "PrepareForSleep", "b", start)

    def tell(self, session: str, signal: str) -> None:
        """`loginctl lock-session` and `unlock-session`: Lock, Unlock."""
        self.emit(session, SESSION, signal, "")

    def hint(self, session: str, locked: bool) -> None:
        """A screen locker says what it has done."""
        self.sessions[session].locked = locked
        changed = {"LockedHint": ("b", locked), "IdleHint": ("b", False)}
        interface = "org.freedesktop.DBus.Properties"
        self.emit(session, interface, "PropertiesChanged", "sa{sv}as", SESSION, changed, ["IdleSinceHint"])

    def stop(self) -> None:
        super().stop()
        for inhibitor in self.inhibitors:
            inhibitor.close()
