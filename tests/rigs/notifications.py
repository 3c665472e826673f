"""A notification daemon that shows nothing and remembers everything."""

from __future__ import annotations

from dataclasses import dataclass, field

from rigs.message_bus import BusService, RefusedError


@dataclass(frozen=True)
class Notice:
    """A notification, as it was asked for."""

    summary: str
    body: str
    actions: tuple[str, ...]
    hints: dict[str, object] = field(hash=False)


class Notifications(BusService):
    """org.freedesktop.Notifications."""

    name = "org.freedesktop.Notifications"

    def __init__(self, address: str) -> None:
        self.capabilities = ["actions", "body", "body-markup"]
        self.hanging = False
        """Whether it answers nothing."""
        self.refusing = False
        """Whether it puts up no notices."""
        self.asked: list[str] = []
        """The methods that were called."""
        self.standing: dict[int, Notice] = {}
        """What can be seen now, by number."""
        self.shown: list[Notice] = []
        """What could ever be seen."""
        self.withdrawn: list[int] = []
        super().__init__(address)

    def answer(self, path, interface, method, arguments):
        assert (path, interface) == ("/org/freedesktop/Notifications", self.name)
        self.asked.append(method)
        if self.hanging:
            return None
        match method:
            case "GetCapabilities":
                return "as", (self.capabilities,)
            case "Notify":
                return "u", (self._show(arguments),)
            case "CloseNotification":
                self.withdrawn.append(arguments[0])
                if self.standing.pop(arguments[0], None) is None:
                    raise RefusedError("no such notification")
                return None, ()
        raise RefusedError(f"no method {method}")

    def _show(self, arguments: tuple) -> int:
        if self.refusing:
            raise RefusedError("not now")
        _program, replaces, _icon, summary, body, actions, hints, _expiry = arguments
        assert replaces == 0
        number = len(self.shown) + 1
        self.standing[number] = Notice(summary, body, tuple(actions), hints)
        self.shown.append(self.standing[number])
        return number

    def await_notices(self, count: int) -> list[Notice]:
        """Waits until so many are shown at once, and returns them."""
        self.wait_until(lambda: len(self.standing) == count)
        return list(self.standing.values())
