"""A guest of an agent, and what it tries; run as root, `guest.py SOCKET UID...` becomes each of these users.

It reads lines from standard input, and answers each with a line for each user:
- `ask NUMBER HEX`: sends the bytes on the connection with this number, which is opened if need be; the reply
  in hexadecimal, or `closed`.
- `crowd COUNT HEX`: opens as many connections, and sends the bytes on each; how many have a reply.
- `flood SECONDS COUNT HEX`: sends the bytes again and again on as many connections, reading what comes; how
  many bytes came.
- `leave`: closes all connections.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time


class _User:
    def __init__(self, path: str) -> None:
        self._path = path
        self._connections: dict[str, socket.socket] = {}

    def does(self, words: list[str]) -> str:
        match words:
            case ["ask", number, message]:
                return self._ask(number, bytes.fromhex(message))
            case ["crowd", count, message]:
                for number in range(int(count)):
                    self._open(f"crowd {number}")
                answers = [
                    self._ask(f"crowd {number}", bytes.fromhex(message)) for number in range(int(count))
                ]
                return str(len([answer for answer in answers if answer != "closed"]))
            case ["flood", seconds, count, message]:
                return self._flood(float(seconds), int(count), bytes.fromhex(message))
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        return "left"

    def _open(self, number: str) -> socket.socket:
        connection = self._connections[number] = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        connection.settimeout(60)
        return connection

    def _ask(self, number: str, message: bytes) -> str:
        connection = self._connections.get(number) or self._open(number)
        try:
            connection.sendall(message)
            head = connection.recv(4, socket.MSG_WAITALL)
            if len(head) < 4:
                return "closed"
            return connection.recv(*struct.unpack(">I", head), socket.MSG_WAITALL).hex()
        except OSError:
            return "closed"

    def _flood(self, seconds: float, count: int, message: bytes) -> str:
        connections = [self._open(f"flood {number}") for number in range(count)]
        for connection in connections:
            connection.setblocking(False)
        end, received = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            readable, writable, _ = select.select(connections, connections, [], 0.1)
            for connection in readable:
                received += len(connection.recv(65536))
            for connection in writable:
                try:
                    connection.send(message * 100)
                except BlockingIOError:
                    continue
        return str(received)


def main() -> None:
    path, *uids = sys.argv[1:]
    for line in sys.stdin:
        for uid in map(int, uids):
            _become(uid)
            print(users.setdefault(uid, _User(path)).does(line.split()), flush=True)
            _become(0)


users: dict[int, _User] = {}


def _become(uid: int) -> None:
    # The kernel takes the user from the effective number when a socket connects.
    os.setresuid(0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, 0)
    os.setresuid(uid, uid, 0)


if __name__ == "__main__":
    main()
