"""twisted_login.py PORT USER COMMAND: logs in by Twisted with the first key of the agent that opens there.

It runs COMMAND on 127.0.0.1 and prints what that prints. It accepts any host key.
"""

import os
import sys

from twisted.conch.endpoints import SSHCommandClientEndpoint
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import react


class AnyHost:
    """In the place of known_hosts."""

    def verifyHostKey(self, *_):  # noqa: N802
        return succeed(True)


class Output(Protocol):
    """Standard output of the command; `ended` is its end."""

    def __init__(self):
        self.ended = Deferred()

    def dataReceived(self, data):  # noqa: N802
        sys.stdout.buffer.write(data)

    def connectionLost(self, reason):  # noqa: N802
        self.ended.callback(None)


def main(reactor, port, user, command):
    endpoint = SSHCommandClientEndpoint.newConnection(
        reactor,
        command.encode(),
        user.encode(),
        "127.0.0.1",
        port=int(port),
        knownHosts=AnyHost(),
        agentEndpoint=UNIXClientEndpoint(reactor, os.environ["SSH_AUTH_SOCK"]),
    )
    return connectProtocol(endpoint, Output()).addCallback(lambda output: output.ended)


react(main, sys.argv[1:])
