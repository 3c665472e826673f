"""The far end of p11-kit's client module, which means ill: `remote_module.py SOCKET HABIT`.

Its habit is `pours` (an answer of a gigabyte) or `drips` (a byte of a shorter one now and then).
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time

_HEAD = struct.Struct(">III")
"""Call, length of options, length of the answer (p11-kit/rpc-transport.c)."""


def serve(client: socket.socket, habit: str) -> None:
    """Answer the first call, for ever."""
    client.recv(1)
    client.sendall(b"\0")  # the version of the protocol
    call, options, length = _HEAD.unpack(client.recv(_HEAD.size, socket.MSG_WAITALL))
    client.recv(options + length, socket.MSG_WAITALL)
    print("reached", flush=True)
    client.sendall(_HEAD.pack(call, 0, 2**30 if habit == "pours" else 100_000))
    try:
        while True:
            if habit == "pours":
                client.sendall(b"x" * 1_000_000)
            else:
                client.sendall(b"x")
                time.sleep(0.2)
    except OSError:
        return


def main() -> None:
    """Serve until killed; a line is printed when it can be reached."""
    path, habit = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("listening", flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client, habit), daemon=True).start()


if __name__ == "__main__":
    main()
