"""The control socket: its place, what it answers, and clients that do not behave."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import LOGIN_KEY, ControlRig, listening
from doubles.stand_ins import Key, run

from replug.agent.clients.peer import Peer
from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.model import Config
from replug.agent.control import server as control_module
from replug.agent.control.server import Control
from replug.agent.control.shared_answer import SharedAnswer
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identity import SoftwareIdentity
from replug.protocol.keys import fingerprint
from replug.protocol.messages import RemoveIdentity


def test_status_as_json(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        await rig.agent.add()
        await rig.agent.ask(RemoveIdentity(b"unknown"))
        status, out, err = await rig.replug("status", "--json")
        assert (status, err) == (0, "")
        answer = json.loads(out)
        [token], [refusal] = answer.pop("tokens"), answer.pop("refusals")
        assert 0 <= time.time() - answer.pop("configuration_read") < 600
        assert answer == {
            "version": 1,
            "release": rig.release,
            "pid": os.getppid(),
            "socket": rig.socket,
            "locked": False,
            "memory_readable": False,
            "no_guests": "",
            "no_guests_next_step": "",
            "configuration_refused": "",
            "configuration_refused_since": None,
            "forget_pin_on": [],
            "software_keys": [],
            "security_keys": [],
            "upstreams": [],
            "sockets": [],
            "certificates": [],
            "key_rules": [],
            "hosts": [],
            "allowed_modules": f"{rig.agent.module.parent}/*",
            "providers": [{"name": str(rig.agent.module), "module": str(rig.agent.module)}],
        }
        inserted = token.pop("last_inserted")
        assert 0 <= time.time() - inserted < 20
        assert token == {
            "label": "work",
            "manufacturer": "Maker",
            "model": "Model",
            "serial": "1",
            "copy": 0,
            "has_twin": False,
            "module": str(rig.agent.module),
            "state": "ready",
            "why": "",
            "pin_remembered": True,
            "pin_configured": False,
            "pin_expires_in": None,
            "pin_tries": "full",
            "expires_in": None,
            "without_keys": "",
            "first_key": "",
            "first_key_then": "",
            "last_removed": None,
            "keys": [
                {
                    "fingerprint": fingerprint(LOGIN_KEY.blob),
                    "type": "ssh-ed25519",
                    "comment": "login",
                    "certificate": False,
                    "confirm": False,
                    "confirm_when": [],
                    "restricted": False,
                    "ca": False,
                },
            ],
            "left_out": [],
        }
        assert 0 <= time.time() - refusal.pop("time") < 20
        assert refusal.pop("program").endswith(f"(pid {os.getpid()})")
        assert refusal == {
            "request": "RemoveIdentity",
            "reason": f"key {fingerprint(b'unknown')} is not in the agent",
            "next_step": "see which keys there are with ssh-add -l; add a token's with ssh-add -s MODULE",
            "purpose": "",
        }
        await rig.control.close()

    run(main())


def test_a_locked_agent_shows_no_keys(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        await rig.agent.add()
        await rig.agent.keyring.lock(b"secret")
        _, out, _ = await rig.replug("status", "--json")
        answer = json.loads(out)
        assert answer["locked"]
        assert [token["keys"] for token in answer["tokens"]] == [[]]
        await rig.control.close()

    run(main())


CA = CaEntry(fingerprint(LOGIN_KEY.blob), 600, ("root",), confirm=True)
UNKNOWN = CaEntry(f"SHA256:{'x' * 43}", 60, ("*",), types=("host",))


def test_ca_keys_as_json(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        options = rig.agent.keyring.settings.options
        rig.agent.keyring.change_options(replace(options, config=Config(cas=(CA, UNKNOWN))))
        await rig.agent.add()
        known, unknown = json.loads(await rig.say(b"ca\n"))["authorities"]
        assert known == {
            "fingerprint": CA.key,
            "key": base64.b64encode(LOGIN_KEY.blob).decode(),
            "place": 'token "work" (serial 1)',
            "present": True,
            "types": ["user"],
            "principals": ["root"],
            "max_validity": 600,
        }
        assert unknown == {
            "fingerprint": UNKNOWN.key,
            "key": "",
            "place": "",
            "present": False,
            "types": ["host"],
            "principals": ["*"],
            "max_validity": 60,
        }
        _, out, _ = await rig.replug("status", "--json")
        (key,) = json.loads(out)["tokens"][0]["keys"]
        assert (key["ca"], key["confirm"]) == (True, True)
        _, out, _ = await rig.replug("status")
        assert "(ED25519, asks each time, signs certificates only)" in out
        # One that is out is known still.
        rig.agent.slots.tokens.clear()
        for module in rig.agent.keyring.modules():
            await module.look()
        known, _ = json.loads(await rig.say(b"ca\n"))["authorities"]
        assert (known["present"], bool(known["key"])) == (False, True)
        await rig.control.close()

    run(main())


def test_a_locked_agent_shows_no_ca_keys(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        options = rig.agent.keyring.settings.options
        rig.agent.keyring.change_options(replace(options, config=Config(cas=(CA,))))
        await rig.agent.add()
        await rig.agent.keyring.lock(b"secret")
        answer = json.loads(await rig.say(b"ca\n"))
        assert answer["locked"]
        assert [one["key"] for one in answer["authorities"]] == [""]
        status, out, error = await rig.replug("ca", "trust")
        assert (status, out) == (1, "")
        assert error == "replug: the agent is locked: unlock it with ssh-add -X\n"
        await rig.control.close()

    run(main())


# The socket.


def test_the_socket_is_its_owners_alone_and_goes_with_the_agent(rig: ControlRig) -> None:
    async def main() -> None:
        assert rig.path == Path(rig.socket + ".control")
        await rig.control.start()
        assert stat.filemode(rig.path.stat().st_mode) == "srw-------"
        await rig.control.close()
        assert not rig.path.exists()

    run(main())


def test_the_socket_of_a_dead_agent_is_replaced(rig: ControlRig) -> None:
    async def main() -> None:
        with listening(rig.path):
            pass
        await rig.control.start()
        assert (await rig.replug("status"))[0] == 0
        await rig.control.close()

    run(main())


@pytest.mark.parametrize("occupy", [listening, lambda path: path.open("w")])
def test_what_is_alive_or_no_socket_is_left_alone(
    rig: ControlRig, occupy: Callable[[Path], AbstractContextManager[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with occupy(rig.path):
            before = rig.path.stat().st_ino
            await rig.control.start()
            await rig.control.close()
            assert rig.path.stat().st_ino == before

    run(main())
    [warning] = caplog.records
    assert warning.getMessage().startswith("no control socket: ")
    assert "Address already in use" in warning.getMessage()


def test_a_path_that_is_too_long_costs_only_the_control_socket(
    rig: ControlRig, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        too_long = Control(f"/tmp/{'x' * 100}", {})
        await too_long.start()
        await too_long.close()

    run(main())
    [warning] = caplog.records
    assert warning.getMessage().startswith("no control socket: ")
    assert "path too long" in warning.getMessage()


def test_a_socket_that_somebody_removed_does_not_disturb_the_end(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        rig.path.unlink()
        await rig.control.close()

    run(main())


def test_a_socket_that_somebody_replaced_is_not_ours_to_remove(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        rig.path.unlink()
        with listening(rig.path):
            await rig.control.close()
            assert rig.path.exists()

    run(main())


# Clients that do not behave.


def test_another_user_gets_no_answer(rig: ControlRig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await rig.control.start()
        monkeypatch.setattr(Peer, "of", lambda _client: Peer(1, 1 + max(os.geteuid(), 1)))
        assert await rig.say(b"status\n") == b""
        await rig.control.close()

    run(main())


@pytest.mark.parametrize("text", [b"\n", b"STATUS\n", b"status now\n", b"\xff\n"])
def test_a_command_that_does_not_exist(rig: ControlRig, text: bytes) -> None:
    async def main() -> None:
        await rig.control.start()
        answer = json.loads(await rig.say(text))
        assert list(answer) == ["error"]
        assert answer["error"].startswith("unknown command ")
        await rig.control.close()

    run(main())


def test_a_command_that_never_ends(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        assert await rig.say(b"x" * 100_000) == b""
        assert (await rig.replug("status"))[0] == 0
        await rig.control.close()

    run(main())


def test_a_client_that_says_nothing_is_sent_away(rig: ControlRig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(control_module, "_PATIENCE", 0.05)
        await rig.control.start()
        assert await rig.say(b"stat") == b""
        assert (await rig.replug("status"))[0] == 0
        await rig.control.close()

    run(main())


def test_silent_clients_keep_nobody_out(rig: ControlRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many processes they are of."""
    monkeypatch.setattr(control_module, "_MOST", 3)

    async def main() -> None:
        await rig.control.start()
        silent = [await asyncio.open_unix_connection(str(rig.path)) for _ in range(3)]
        while len(rig.control._connections) < 3:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.001)
        assert b'"version"' in await rig.say(b"status\n")
        first, *others = silent
        await first[0].read()  # it was closed; the others are served as before
        for reader, writer in others:
            writer.write(b"status\n")
            assert b'"version"' in await reader.read()
        for _, writer in silent:
            writer.close()
        await rig.control.close()

    run(main())


@pytest.mark.parametrize("processes", [[10, 10, 11, 20], [10, 11, 12, 20]])
def test_a_command_that_waits_for_many_answers_keeps_no_other_out(
    rig: ControlRig, monkeypatch: pytest.MonkeyPatch, processes: list[int]
) -> None:
    """However many processes it has."""
    monkeypatch.setattr(control_module, "_MOST", 3)
    monkeypatch.setattr(control_module, "known_by_command", lambda its: its._replace(pid=its.pid // 10))
    monkeypatch.setattr(Peer, "of", lambda _client: Peer(processes.pop(0), os.getuid()))

    async def main() -> None:
        never = asyncio.get_running_loop().create_future()
        rig.control._answers["slow"] = SharedAnswer(lambda: never)
        await rig.control.start()
        slow = []
        for number in range(3):
            reader, writer = await asyncio.open_unix_connection(str(rig.path))
            writer.write(b"slow\n")
            slow.append((reader, writer))
            while len(rig.control._asking) <= number:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.001)
        assert b'"version"' in await rig.say(b"status\n")
        assert await slow[2][0].read() == b""  # the newest
        never.cancel()
        for _, writer in slow:
            writer.close()
        await rig.control.close()

    run(main())


def test_a_status_of_many_keys_is_made_and_encoded_in_pieces(
    rig: ControlRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands take a tenth of a second, in which everybody else would wait."""
    monkeypatch.setattr("replug.token.pieces._PIECE", 0.0)
    keyring = rig.agent.keyring
    turns = 0

    async def main() -> None:
        nonlocal turns
        for number in range(50):
            blob = Key(f"key {number}").blob
            keyring.identities.add(SoftwareIdentity(blob, b"", KeyConstraints(), keyring._software_keys))
        answer = asyncio.create_task(rig.control._answer("status"))
        while not answer.done():
            await asyncio.sleep(0)
            turns += 1
        assert len(json.loads(answer.result())["software_keys"]) == 50

    run(main())
    assert turns > 100


def test_clients_that_do_not_read_hold_no_memory(rig: ControlRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "_PATIENCE", 0.2)
    rig.control._answers["long"] = SharedAnswer(lambda: {"long": "x" * 4_000_000})

    async def main() -> None:
        await rig.control.start()
        clients = []
        for _ in range(40):
            reader, writer = await asyncio.open_unix_connection(str(rig.path), limit=1000)
            writer.write(b"long\n")
            clients.append((reader, writer))
        await asyncio.sleep(0)
        while rig.control._connections:
            assert len(rig.control._connections) <= control_module._MOST_OF_A_PROCESS
            await asyncio.sleep(0.05)
        for _, writer in clients:
            writer.close()
        await rig.control.close()

    run(main())
