"""The man pages: no warnings, and nothing of the command lines and the JSON forms is missing in them."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.agent_bench import ControlRig
from doubles.stand_ins import run

from replug.agent.commands.doctor import _checks
from replug.agent.commands.main import main, make_parser
from replug.agent.config.key_rule import KeyRule
from replug.agent.config.model import Config
from replug.agent.doctor.polkit import permit
from replug.agent.process import arguments
from replug.protocol.messages import RemoveIdentity

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("replug", "replug-agent")


def page(name: str) -> str:
    """The page as plain text, its paragraphs folded to one line each."""
    shown = subprocess.run(
        ["man", "-l", DOCS / f"{name}.1"],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MANWIDTH": "1000", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.replace("\N{HYPHEN}", "-").replace("\N{MINUS SIGN}", "-")


def section(text: str, heading: str) -> str:
    """What stands under a heading."""
    found = re.search(rf"^{heading}\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {heading}"
    return found[1]


@pytest.mark.parametrize("width", ["60", "80", "120"])
@pytest.mark.parametrize("name", PAGES)
def test_man_has_nothing_to_complain_about(name: str, width: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", DOCS / f"{name}.1"],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MANWIDTH": width},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def parsers(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """A parser and those of its commands, with the words that lead to them."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from parsers(below, (*path, name))


def test_every_command_and_option_of_replug_is_there() -> None:
    text = page("replug")
    for path, parser in parsers(make_parser()):
        part = section(text, path[0].upper()) if path else text
        for word in path:
            assert re.search(rf"\b{word}\b", part), path
        for action in parser._actions:
            for option in action.option_strings:
                described = part if option not in ("-h", "--help", "--version") else text
                assert re.search(rf"(?<![-\w]){re.escape(option)}\b", described), (path, option)


def test_every_option_of_the_agent_is_there() -> None:
    options = section(page("replug-agent"), "OPTIONS")
    for flag in arguments._FLAGS.replace(":", ""):
        assert re.search(rf"^ +-{flag}\b", options, re.MULTILINE), flag


def test_the_rule_for_polkit_is_that_of_the_doctor() -> None:
    assert f" {permit('you')}\n" in section(page("replug"), "POLKIT")


def test_every_check_of_the_doctor_is_there() -> None:
    described = section(page("replug"), "DOCTOR")
    names = {"socket": "agent", "readers": "reader", "tokens": "token", "modules": "module"}
    names["certificates"] = "certificate"
    for check in _checks():
        name = check.__name__.removeprefix("check_").replace("_", "-")
        assert re.search(rf"^ +{names.get(name, name)}\b", described, re.MULTILINE), name


def names_in(value: object) -> Iterator[str]:
    """Every field's name in a JSON value."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from names_in(one)


def test_every_field_of_the_json_forms_is_there(rig: ControlRig, capsys: pytest.CaptureFixture[str]) -> None:
    async def status() -> str:
        await rig.control.start()
        keyring = rig.agent.keyring
        keyring.change_options(replace(keyring.settings.options, config=Config(key_rules=(KeyRule(("a",)),))))
        keyring.destinations._learn("SHA256:host", "SHA256:key")
        await rig.agent.add()
        await rig.agent.ask(RemoveIdentity(b"unknown"))
        _, out, _ = await rig.replug("status", "--json")
        await rig.control.close()
        return out

    answer = json.loads(run(status()))
    assert answer["tokens"][0]["keys"]
    assert answer["refusals"]
    assert answer["key_rules"]
    assert answer["hosts"]
    described = section(page("replug"), "JSON OUTPUT")
    main(["doctor", "--json"])
    for name in [*names_in(answer), *names_in(json.loads(capsys.readouterr().out))]:
        assert re.search(rf"\b{name}\b", described), name
