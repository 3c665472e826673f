"""`replug explain` and `replug logs`: refusals in plain words, and where the agent's own are."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from pathlib import Path

import pytest
from doubles.agent_bench import ControlRig
from doubles.stand_ins import run
from rigs.home import Home

from replug.agent.commands import explain as explain_command
from replug.agent.commands import logs as logs_command
from replug.agent.commands.explain import explain
from replug.agent.commands.main import main, make_parser
from replug.agent.keys.refusal import unknown_key
from replug.protocol import decoding, messages
from replug.protocol.messages import RemoveIdentity, RemoveSmartcardKey
from replug.token.errors import ExplainedError, Verdict, WorkerRefusedError
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.pins.rules import PinRules
from replug.token.prompts.request import Asker, ConfirmRequest, PinRequest
from replug.token.serving.shown_keys import ShownKeys

NOW = 1_700_000_000.0
TOKEN = TokenId("Maker", "Model", "1", "work")
LOCKED = {
    "time": NOW - 180,
    "request": "SignRequest",
    "program": "ssh (pid 7)",
    "reason": 'token "work" (serial 1): the PIN is locked',
    "next_step": "unblock it with the PUK",
}


def refused_login(verdict: Verdict) -> ExplainedError:
    """What a login raises that the worker refused for this reason."""
    owner = PinOwner("/module.so", TOKEN, ShownKeys(lambda: None))
    rules = PinRules(owner, PinCache(lambda: None), lambda _: PinPolicy())
    with pytest.raises(ExplainedError) as caught:
        rules.refused(WorkerRefusedError(verdict, ""), None)
    return caught.value


def test_a_paragraph_says_what_who_why_and_what_now() -> None:
    [paragraph] = explain([LOCKED], NOW)
    assert paragraph.startswith("ssh (pid 7) asked 3 min ago (")
    assert "for a signature, for example to log in." in paragraph
    assert 'The agent refused: token "work" (serial 1): the PIN is locked.' in paragraph
    assert paragraph.endswith("What to do now: unblock it with the PUK.")


def test_what_was_to_be_signed_is_said() -> None:
    login, other = "login at server (SHA256:abc), as root", "login at server (SHA256:abc), as alice"
    paragraphs = list(explain([LOCKED | {"purpose": login}, LOCKED | {"purpose": other}], NOW))
    assert [
        f" for a signature: {purpose}. The agent refused: " in said
        for purpose, said in zip((login, other), paragraphs, strict=True)
    ] == [True, True]


def test_repeated_refusals_are_one_paragraph() -> None:
    other = LOCKED | {"reason": "the agent is locked"}
    paragraphs = list(explain([LOCKED, LOCKED, LOCKED, other], NOW))
    assert [" 3 times, last 3 min ago " in paragraph for paragraph in paragraphs] == [True, False]


def test_without_a_next_step_there_is_still_something_to_do() -> None:
    [paragraph] = explain([LOCKED | {"reason": "no idea", "next_step": ""}], NOW)
    assert "run replug doctor" in paragraph.partition("What to do now: ")[2]


PIN_REQUEST = PinRequest(TOKEN, TokenFlag(0), "", Asker())
CONFIRM_REQUEST = ConfirmRequest("login", "SHA256:abc", Asker())


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (unknown_key(b"blob"), "ssh-add -s MODULE"),
        (PIN_REQUEST.cancelled(), "try again and enter the PIN"),
        (PIN_REQUEST.too_late(120), "prompt_timeout"),
        (CONFIRM_REQUEST.too_late(120), "prompt_timeout"),
        (refused_login(Verdict.PIN_INCORRECT), "type the right one when you are asked again"),
        (refused_login(Verdict.LOGIN_CANCELLED), "try again and enter the PIN"),
    ],
)
def test_a_refusal_carries_its_next_step_from_where_it_is_raised(refusal: ExplainedError, words: str) -> None:
    assert words in refusal.next_step
    [paragraph] = explain([LOCKED | {"reason": refusal.reason, "next_step": refusal.next_step}], NOW)
    assert f"The agent refused: {refusal.reason}. What to do now: {refusal.next_step}." in paragraph


def test_what_the_agent_said_is_what_is_shown(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        await rig.agent.ask(RemoveSmartcardKey(b"/nonexistent/x.so", b""))
        _, out, _ = await rig.replug("explain")
        assert out.endswith(
            "The agent refused: /nonexistent/x.so was not added."
            " What to do now: see what was added with replug status --json, under providers.\n"
        )
        await rig.control.close()

    run(main())


def test_every_request_has_plain_words() -> None:
    requests = {
        name
        for name, kind in vars(messages).items()
        if inspect.isclass(kind) and kind in decoding.Request.__args__
    }
    assert requests
    assert requests - set(explain_command._ASKED) == set()


def test_of_a_running_agent(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        assert await rig.replug("explain") == (
            0,
            "Nothing has been refused since the agent was started.\n",
            "",
        )
        for blob in (b"first", b"second", b"third"):
            await rig.agent.ask(RemoveIdentity(blob))
        status, out, _ = await rig.replug("explain")
        assert status == 0
        assert out.count("to remove a key (ssh-add -d)") == 3
        assert len(out.split("\n\n")) == 3
        _, out, _ = await rig.replug("explain", "-n", "1")
        assert out.count("to remove a key (ssh-add -d)") == 1
        await rig.control.close()

    run(main())


# Logs.


def test_without_a_journal_it_says_where_to_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs_command, "_JOURNAL", "/nowhere")
    assert main(["logs"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "replug-agent -D" in err
    assert "/var/log/auth.log" in err


def test_it_becomes_journalctl(tmp_path: Path) -> None:
    """In a process of its own, which ends as journalctl does."""
    home = Home(tmp_path)
    program = home.write(
        "journalctl",
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(7)\n",
        0o700,
    )
    code = (
        "import sys; from replug.agent.commands import logs, main;"
        "logs._JOURNAL = '/'; sys.exit(main.main(sys.argv[1:]))"
    )
    done = home.run(
        sys.executable, "-c", code, "logs", "-f", "-n", "20", "--since", "-1 h",
        env={"PATH": f"{program.parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.status == 7, done
    assert json.loads(done.out) == [
        "--user",
        "--follow",
        "--lines=20",
        "--since=-1 h",
        "SYSLOG_IDENTIFIER=replug-agent",
        "+",
        "USER_UNIT=replug-agent.service",
        "+",
        "_SYSTEMD_USER_UNIT=replug-agent.service",
        "+",
        "USER_UNIT=replug-agent.socket",
        "+",
        "_SYSTEMD_USER_UNIT=replug-agent.socket",
    ]


def test_the_real_journalctl_knows_the_arguments(tmp_path: Path) -> None:
    chosen = make_parser().parse_args(["logs", "-n", "1", "--since=-1h"])
    assert isinstance(chosen, argparse.Namespace)
    done = Home(tmp_path).run(*logs_command.arguments(chosen), "--no-pager")
    assert "journal" in done.err or done.status == 0, done
    assert "option" not in done.err
    assert "parse" not in done.err
