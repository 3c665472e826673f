"""`replug status`: what the user reads in a terminal, and what a program reads."""

from __future__ import annotations

import io
import os
import re
import time
from importlib.metadata import version
from typing import Any

import pytest
from doubles.agent_bench import LOGIN_KEY, ControlRig
from doubles.stand_ins import Key, StandInToken, run

from replug.agent.commands.status import describe
from replug.agent.commands.terminal_style import Colour, Style
from replug.agent.control.release import change_over, older_agent, what_is_lost
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Lock
from replug.token.identity import TokenFlag

NOW = 1_700_000_000.0
PIPED = Style(colours=False, unicode=False, width=None)
TOKEN: dict[str, Any] = {
    "label": "work",
    "model": "Model",
    "serial": "1",
    "state": "ready",
    "why": "",
    "pin_remembered": False,
    "pin_tries": "full",
    "expires_in": None,
    "last_inserted": None,
    "last_removed": None,
    "keys": [],
}
KEY = {
    "fingerprint": "SHA256:g7tBF9d8CF1CV0j35KFgW45iy1Feaj6mEUJe7r6c7gk",
    "type": "ecdsa-sha2-nistp256",
    "comment": "laptop",
}
REFUSAL = {
    "time": NOW - 200,
    "request": "SignRequest",
    "program": "ssh (pid 7)",
    "reason": 'token "work" (serial 1): the PIN is locked',
    "next_step": "unblock it with the PUK",
}
STATUS: dict[str, Any] = {"pid": 4711, "socket": "/run/agent", "locked": False, "tokens": [], "refusals": []}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(token: dict[str, Any], style: Style = PIPED) -> list[str]:
    return list(describe(STATUS | {"tokens": [TOKEN | token]}, style, NOW))[2:]


def test_each_problem_of_a_refused_configuration_is_legible() -> None:
    refused = {"configuration_refused": "a.toml:1: one\na.toml:2: two", "forget_pin_on": []}
    text = "\n".join(describe(STATUS | refused, PIPED, NOW))
    assert "config.toml is refused: a.toml:1: one; a.toml:2: two\n" in text


def test_status_of_a_running_agent(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        status, out, err = await rig.replug("status")
        assert (status, err) == (0, "")
        assert out.splitlines() == [
            f"replug-agent (pid {os.getppid()}) on {rig.socket}",
            "  no token: plug one in, or add one with ssh-add -s MODULE; if one is in, see replug doctor",
        ]
        await rig.agent.add()
        _, out, _ = await rig.replug("status")
        _, _, title, facts, key = out.splitlines()
        assert title in (
            '\N{BLACK CIRCLE} Token "work" (serial 1) is ready',
            '* Token "work" (serial 1) is ready',
        )
        assert facts.startswith("  inserted ")
        assert facts.endswith(", PIN remembered until the agent ends")
        assert key == f"  {fingerprint(LOGIN_KEY.blob)} login (ED25519)"
        await rig.agent.ask(Lock(b"secret"))
        await rig.agent.remove()
        _, out, _ = await rig.replug("status")
        lines = out.splitlines()
        assert lines[1] == "  locked: unlock it with ssh-add -X"
        assert lines[-4] == "Last refusals (see replug explain for details):"
        assert lines[-3].endswith(", RemoveSmartcardKey:")
        assert lines[-2] == "    the agent is locked"
        assert lines[-1].endswith(" unlock it with ssh-add -X")
        await rig.control.close()

    run(main())


def test_tries_lost_are_told(rig: ControlRig) -> None:
    async def main() -> None:
        token = StandInToken(LOGIN_KEY)
        rig.agent.slots.tokens = [token]
        await rig.control.start()
        token.flags |= TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY
        await rig.agent.add(pin=b"")
        _, out, _ = await rig.replug("status")
        assert "  one PIN try is left: a wrong PIN locks the token" in out.splitlines()
        await rig.control.close()

    run(main())


def test_a_right_pin_gives_the_tries_back(rig: ControlRig) -> None:
    async def main() -> None:
        token = StandInToken(LOGIN_KEY)
        rig.agent.slots.tokens = [token]
        await rig.control.start()
        token.flags |= TokenFlag.USER_PIN_COUNT_LOW
        await rig.agent.add(pin=b"")
        _, out, _ = await rig.replug("status")
        assert "  a wrong PIN was entered since the last correct one" in out.splitlines()
        await rig.agent.add()
        _, out, _ = await rig.replug("status")
        assert "PIN remembered" in out
        assert "wrong PIN" not in out
        await rig.control.close()

    run(main())


def test_how_long_a_pin_is_remembered() -> None:
    assert shown({"pin_remembered": True, "expires_in": 59}) == [
        '* Token "work" (serial 1) is ready',
        "  PIN remembered until 22:14:19 (59 s left)",
    ]
    assert shown({"pin_remembered": True, "expires_in": 2 * 86400})[1] == (
        "  PIN remembered until 2023-11-16 22:13:20 (2 days left)"
    )
    assert shown({"expires_in": 3600})[1] == "  served until 23:13:20 (1 h left)"


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (0.2, "just now"),
        (-5, "just now"),
        (59, "59 s ago"),
        (185, "3 min ago"),
        (7300, "2 h ago"),
        (90000, "1 day ago"),
    ],
)
def test_ages(age: float, words: str) -> None:
    assert shown({"last_inserted": NOW - age})[1] == f"  inserted {words}"


def test_the_reason_for_a_state_is_told() -> None:
    gone = {
        "state": "absent",
        "why": "it is in no slot",
        "last_inserted": NOW - 900,
        "last_removed": NOW - 180,
    }
    assert shown(gone) == ['* Token "work" (serial 1) is absent: it is in no slot', "  removed 3 min ago"]


def test_a_token_without_a_label_goes_by_its_model() -> None:
    assert shown({"label": "", "serial": ""}) == ["* Token Model is ready"]


def test_each_key_stands_under_its_own_token(rig: ControlRig) -> None:
    """Also where tokens have no serial number: not all do."""

    async def main() -> None:
        other = Key("other")
        rig.agent.slots.tokens = [
            StandInToken(LOGIN_KEY, label="first", serial=""),
            StandInToken(other, label="second", serial=""),
        ]
        await rig.control.start()
        await rig.agent.add(pin=b"")
        _, out, _ = await rig.replug("status")
        lines = [line for line in out.splitlines() if "SHA256:" in line or "Token" in line]
        words = [line.split('"')[1] if "Token" in line else line.split()[1] for line in lines]
        assert sorted([words[:2], words[2:]]) == [["first", "login"], ["second", "other"]]
        await rig.control.close()

    run(main())


@pytest.mark.parametrize("running", ["0.0.1", ""])
def test_an_agent_of_another_version_than_is_installed(rig: ControlRig, running: str) -> None:
    async def main() -> None:
        rig.release = running
        await rig.control.start()
        _, out, _ = await rig.replug("status")
        said = f"\n0.0.1 is running, {version('replug')} is installed. PINs and keys in memory do not survive"
        assert (said in out) == bool(running)
        how = "\nTo change over: end the agent (eval $(replug-agent -k)) and start it as before\n"
        assert (how in out) == bool(running)
        await rig.control.close()

    run(main())


CERTIFICATE = {
    "ca": ["SHA256:one"],
    "hosts": ["*.example.com"],
    "principals": ["root"],
    "serial": 231114221300001,
    "key_id": "you@here",
    "fingerprint": "SHA256:two",
    "certified_by": "SHA256:one",
    "certified_on": 'token "ssh_ca"',
    "valid_before": NOW + 430,
    "certified_principals": ["root"],
    "failed": "",
    "next_step": "",
    "failed_at": None,
}
NONE_YET = CERTIFICATE | {"serial": None, "valid_before": None, "certified_principals": []}
FAILED = {"failed": 'token "ssh_ca" is in no slot', "next_step": "plug it in", "failed_at": NOW - 200}


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        (
            CERTIFICATE,
            [
                "  serial 231114221300001 for root at *.example.com, by CA SHA256:one "
                '(token "ssh_ca"), valid 7 min more'
            ],
        ),
        (NONE_YET, ["  none for *.example.com yet: one is made at the next login there"]),
        (
            NONE_YET | FAILED,
            [
                "  none for *.example.com",
                '    3 min ago: token "ssh_ca" is in no slot',
                "    -> plug it in",
            ],
        ),
    ],
)
def test_certificates_of_rules(rule: dict[str, Any], lines: list[str]) -> None:
    text = list(describe(STATUS | {"certificates": [rule]}, PIPED, NOW))
    assert text[text.index("Certificates") + 1 :] == lines


def test_keys_of_security_keys() -> None:
    key = KEY | {
        "type": "sk-ssh-ed25519@openssh.com",
        "provider": "/usr/lib/sk.so",
        "application": "ssh:work",
        "pin_remembered": True,
        "pin_expires_in": 60,
    }
    others = key | {"provider": "internal", "application": "ssh:", "pin_remembered": False}

    text = list(describe(STATUS | {"security_keys": [key, others]}, PIPED, NOW))

    [first, facts, second, other_facts] = text[text.index("Security key keys") + 1 :]
    assert first.endswith(" (ED25519-SK)")
    assert facts.startswith("    for ssh:work, by /usr/lib/sk.so, PIN remembered until ")
    assert second == first
    assert other_facts == "    for ssh:, by internal"


@pytest.mark.parametrize(
    ("status", "what"),
    [
        ({}, "PINs and keys in memory do not survive the change: "),
        ({"tokens": [TOKEN]}, "PINs and keys in memory do not survive the change: "),
        (
            {"tokens": [TOKEN | {"pin_remembered": True}], "software_keys": [KEY, KEY]},
            "It has 1 remembered PIN and 2 keys in memory, which do not survive the change: ",
        ),
        (
            {"software_keys": [KEY], "security_keys": [KEY | {"pin_remembered": True}]},
            "It has 1 remembered PIN and 2 keys in memory, which do not survive the change: ",
        ),
    ],
)
def test_what_an_older_agent_has_is_said_before_it_is_lost(status: dict[str, Any], what: str) -> None:
    assert what_is_lost(status).startswith(what)


def test_how_to_change_over_from_an_older_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    systemds = "systemctl --user restart replug-agent.socket replug-agent.service"
    assert change_over("/run/user/7/replug/agent.sock") == systemds
    assert "replug-agent -k" in change_over("/home/you/.ssh/agent/s.x")
    assert older_agent({}, "2") == "an older release is running, 2 is installed"
    assert older_agent({"release": "2"}, "2") == older_agent({"release": ""}, "2") == ""


def luminance(red: float, green: float, blue: float) -> float:
    """The relative luminance of a colour of parts from 0 to 1 (WCAG 2)."""
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", ["red", "green", "yellow"])
def test_colours_can_be_read_on_white_and_on_black(colour: Colour) -> None:
    """With 256 colours, of a cube of six steps for each part. With eight they are the terminal's own."""
    painted = Style(colours=True, unicode=True, width=80, many_colours=True).paint("x", colour)
    found = re.fullmatch(r"\x1b\[38;5;(\d+)mx\x1b\[0m", painted)
    assert found
    place = int(found[1]) - 16
    steps = (0, 95, 135, 175, 215, 255)
    light = luminance(*(steps[place // size % 6] / 255 for size in (36, 6, 1)))
    assert 1.05 / (light + 0.05) >= 3.5
    assert (light + 0.05) / 0.05 >= 3.5
    plain = Style(colours=True, unicode=True, width=80).paint("x", colour)
    assert "\x1b[33m" not in plain


def test_nothing_a_token_says_reaches_the_terminal_raw(rig: ControlRig) -> None:
    async def main() -> None:
        evil = "\x1b[2J\nToken forged"
        rig.agent.slots.tokens = [StandInToken(Key(evil), label=evil)]
        await rig.control.start()
        await rig.agent.add()
        _, out, _ = await rig.replug("status")
        assert all(line.isprintable() for line in out.splitlines())
        assert not any(line.startswith("Token forged") for line in out.splitlines())
        await rig.control.close()

    run(main())


FULL = STATUS | {
    "locked": True,
    "socket": "/run/user/1000/replug/agent.sock",
    "tokens": [
        TOKEN
        | {
            "state": "unreachable",
            "why": "module /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so failed twice: no answer within 20 s",
            "last_inserted": NOW - 200,
            "pin_remembered": True,
            "expires_in": 100_000,
            "keys": [KEY, KEY | {"comment": "a comment so long that it does not fit a terminal"}],
        }
    ],
    "refusals": [REFUSAL | {"purpose": "login at server (SHA256:abc), as root"}] * 5,
}


def test_a_terminal_of_80_columns_is_enough() -> None:
    lines = list(describe(FULL, Style(colours=False, unicode=True, width=80), NOW))
    assert max(map(len, lines)) <= 80
    assert any(line.endswith("\N{HORIZONTAL ELLIPSIS} (ECDSA)") for line in lines)
    assert sum(KEY["fingerprint"] in line for line in lines) == 2


def test_piped_lines_are_whole_and_plain() -> None:
    text = "\n".join(describe(FULL, PIPED, NOW))
    assert text.isascii()
    assert "\x1b" not in text
    assert "a comment so long that it does not fit a terminal (ECDSA)" in text
    assert "Last refusals, 3 of 5 (see replug explain for details):" in text
    assert text.count("\n    login at server (SHA256:abc), as root\n    token ") == 3


def test_colours_say_what_words_say_too() -> None:
    coloured = "\n".join(describe(FULL, Style(colours=True, unicode=False, width=None), NOW))
    assert "\x1b[31;1munreachable\x1b[0m" in coloured
    assert "\x1b[31;1mlocked\x1b[0m" in coloured


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_are_to_have_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colours: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Style.of(Terminal(io.BytesIO(), "utf-8")).colours is colours
    assert not Style.of(io.TextIOWrapper(io.BytesIO(), "utf-8")).colours


def test_what_cannot_be_encoded_is_replaced() -> None:
    written = io.BytesIO()
    stream = Terminal(written, "ascii")
    style = Style.of(stream)
    assert not style.unicode
    stream.write("\n".join(describe(STATUS | {"tokens": [TOKEN | {"label": "Büro"}]}, style, NOW)))
    stream.flush()
    assert b'"B?ro"' in written.getvalue()
