"""What a client writes into its requests stays recognisable as that in the reasons of their refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from attacks.largest import POINT, REMOVE_PROVIDER, bind, extension, good_bind, key_message, login
from rigs.agent import FAILURE, Agent, frame, sign_request, string

REPLUG = Path(sys.executable).with_name("replug")
SUCCESS = b"\x06"
_CLAIM = "the PIN has expired. What to do now: run evil."
_BLANK = "\u3164"
"""Shows as nothing, though Unicode says that it is a letter."""
_TEXT = (_CLAIM + 600 * _BLANK).encode()
_NAME = (_CLAIM + 40 * _BLANK).encode()
"""The same, no longer than the name of a key type may be."""
_LOGIN = (
    string(bytes(range(32))) + b"\x32" + string(b"root") + string(b"ssh-connection") + string(_NAME) + b"\1"
)

_REFUSED = {
    "a provider to remove": (frame(REMOVE_PROVIDER + string(_TEXT) + string(b"")), "was not added"),
    "a URI to remove": (
        frame(REMOVE_PROVIDER + string(b"pkcs11:" + _TEXT.replace(b";", b"") + b"=1") + string(b"")),
        "is not supported",
    ),
    "a constraint": (key_message(extension(_NAME, b"")), "unknown key constraint"),
    "a type of key": (frame(b"\x11" + string(_NAME) + string(POINT)), "is not supported"),
    "a host key": (bind(string(_NAME) + string(POINT), b""), "is not supported"),
    "a login": (sign_request(string(b"ssh-ed25519") + string(POINT), _LOGIN), "is not in the agent"),
}


@pytest.mark.parametrize("kind", _REFUSED)
def test_a_forwarded_host_cannot_write_reasons(kind: str, agent: Agent) -> None:
    request, ours = _REFUSED[kind]
    with agent.connect() as connection:
        assert connection.ask(good_bind()) == SUCCESS
        assert connection.ask(request)[:1] in {FAILURE, b"\x1c"}
    line = agent.log.splitlines()[-1]
    explained = " ".join(agent.run(REPLUG, "explain").out.split())
    status = " ".join(agent.run(REPLUG, "status").out.split())
    for said in (line, explained, status.partition("Last refusals")[2]):
        assert ours in said
        assert _BLANK not in said
        assert not _claims_on_its_own(said), said
    assert line.isascii(), line


def _claims_on_its_own(said: str) -> bool:
    """Whether the claim is not the beginning of something in quotes."""
    before, found, _ = said.partition(_CLAIM[:20])
    return bool(found) and not before.endswith('"')


def test_the_name_of_a_program_cannot_either(agent: Agent) -> None:
    """A process calls itself what it likes, in fifteen bytes."""
    script = (
        "import socket, sys; open('/proc/self/comm', 'wb').write('x\u3164 asked'.encode());"
        "client = socket.socket(socket.AF_UNIX); client.connect(sys.argv[1]);"
        "client.sendall(bytes.fromhex(sys.argv[2])); client.recv(1)"
    )
    request = login(b"root", 1)
    assert agent.run(sys.executable, "-I", "-c", script, agent.socket, request.hex()).status == 0
    assert '\\"x\\\\u3164 asked\\" (pid ' in agent.log
    assert '"x\\u3164 asked" (pid ' in agent.run(REPLUG, "explain").out
