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
from replug.protocol import decoding, messages
from replug.protocol.messages import RemoveIdentity

NOW = 1_700_000_000.0
LOCKED = {
    "time": NOW - 180,
    "request": "SignRequest",
    "program": "ssh (pid 7)",
    "reason": 'token "work" (serial 1): the PIN is locked',
    "next_step": "unblock it with the PUK",
}


def test_a_paragraph_says_what_who_why_and_what_now() -> None:
    [paragraph] = explain([LOCKED], NOW)
    assert paragraph.startswith("ssh (pid 7) asked 3 min ago (")
    assert "for a signature, which is how one logs in with a key." in paragraph
    assert 'The agent refused: token "work" (serial 1): the PIN is locked.' in paragraph
    assert paragraph.endswith("What to do now: unblock it with the PUK.")


def test_what_was_to_be_signed_is_said() -> None:
    login, other = "login at server (SHA256:abc), as root", "login at server (SHA256:abc), as alice"
    paragraphs = list(explain([LOCKED | {"purpose": login}, LOCKED | {"purpose": other}], NOW))
    assert [
        f" for a signature: {purpose}. The agent refused: " in said
        for purpose, said in zip((login, other), paragraphs, strict=True)
    ] == [True, True]


def test_what_is_refused_again_is_told_once() -> None:
    other = LOCKED | {"reason": "the agent is locked"}
    paragraphs = list(explain([LOCKED, LOCKED, LOCKED, other], NOW))
    assert [" 3 times, last 3 min ago " in paragraph for paragraph in paragraphs] == [True, False]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("key SHA256:x is not in the agent", "ssh-add -s MODULE"),
        ("token: the PIN prompt was cancelled", "enter the PIN"),
        ("unlock: wrong PIN", "a few wrong ones lock the token"),
        ("who knows", "replug doctor looks for the cause"),
    ],
)
def test_there_is_always_something_to_do(reason: str, words: str) -> None:
    [paragraph] = explain([LOCKED | {"reason": reason, "next_step": ""}], NOW)
    assert words in paragraph.partition("What to do now: ")[2]


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
        assert await rig.replug("explain") == (0, "Nothing was refused since the agent was started.\n", "")
        for blob in (b"first", b"second", b"third"):
            await rig.agent.ask(RemoveIdentity(blob))
        status, out, _ = await rig.replug("explain")
        assert status == 0
        assert out.count("to remove a key (ssh-add -d)") == 3
        assert len(out.split("\n\n")) == 3
        _, out, _ = await rig.replug("explain", "-n", "1")
        assert out.count("to remove a key (ssh-add -d)") == 1
        rig.control.close()

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
        "--identifier=replug-agent",
        "--follow",
        "--lines=20",
        "--since=-1 h",
    ]


def test_the_real_journalctl_knows_the_arguments(tmp_path: Path) -> None:
    chosen = make_parser().parse_args(["logs", "-n", "1", "--since=-1h"])
    assert isinstance(chosen, argparse.Namespace)
    done = Home(tmp_path).run(*logs_command.arguments(chosen), "--no-pager")
    assert "journal" in done.err or done.status == 0, done
    assert "option" not in done.err
    assert "parse" not in done.err
