"""Clients that sign all the time, with a software key or with the card's, whatever happens to the card."""

from __future__ import annotations

import threading
import time

from rigs.agent import Agent, sign_request

SOFTWARE_CLIENTS, CARD_CLIENTS = 8, 2
PAUSE = 0.1  # seconds between the requests of one client
_SIGNED = b"\x0e"
_PATIENCE = 180.0  # seconds for a reply


class Load:
    """The clients, from `start` to `stop`."""

    def __init__(self, agent: Agent, software: bytes, card: bytes) -> None:
        """`software` and `card` are the public key blobs."""
        self._agent = agent
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._pauses = 0
        self._paused = False
        self.software_seconds: list[float] = []
        """How long each signature with the software key took."""
        self.software_failures = 0
        self.card_signatures = 0
        self._threads = [
            threading.Thread(target=self._sign, args=(key, key == software), daemon=True)
            for key, count in ((software, SOFTWARE_CLIENTS), (card, CARD_CLIENTS))
            for _ in range(count)
        ]

    def start(self) -> None:
        """Begins to sign."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends; replies that are due still come."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def pause(self) -> None:
        """From now on until `go_on` the agent is locked: what is refused is no failure."""
        with self._lock:
            self._pauses += 1
            self._paused = True

    def go_on(self) -> None:
        """The agent is unlocked."""
        with self._lock:
            self._paused = False

    def _sign(self, blob: bytes, in_software: bool) -> None:
        with self._agent.connect(_PATIENCE) as connection:
            while not self._stopping.wait(PAUSE):
                pauses, paused = self._pauses, self._paused
                begin = time.monotonic()
                signed = connection.ask(sign_request(blob)).startswith(_SIGNED)
                seconds = time.monotonic() - begin
                with self._lock:
                    if not in_software:
                        self.card_signatures += signed
                    elif signed:
                        self.software_seconds.append(seconds)
                    elif not paused and pauses == self._pauses:
                        self.software_failures += 1
