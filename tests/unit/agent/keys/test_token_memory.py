"""The tokens that were seen before the agent started, and the file that they are in."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import AgentBench
from doubles.stand_ins import Key, StandInToken, run

from replug.agent.config.model import Config
from replug.agent.config.options import Options

KEY, HIDDEN = Key("key"), Key("hidden")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/replug/tokens.json"


def waiting(monkeypatch: pytest.MonkeyPatch, folder: Path, *tokens: StandInToken) -> AgentBench:
    """An agent that waits for the tokens of its one configured module."""
    module = str(folder / "module.so")
    config = Config(wait_for_token=20.0, modules=(module,), allowed_modules=f"{folder}/*")
    options = Options(provider_patterns=f"{folder}/*", config=config)
    return AgentBench(monkeypatch, folder, *tokens, options=options)


def read(file: Path) -> dict[str, Any]:
    """What is in the file; nothing while there is none."""
    said: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return said


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    file.write_text(text)


async def written(file: Path) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while not read(file):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
    return read(file)


async def seen(monkeypatch: pytest.MonkeyPatch, folder: Path, file: Path) -> dict[str, Any]:
    """What an agent writes down that sees a token with a key."""
    agent = waiting(monkeypatch, folder, StandInToken(KEY))
    await agent.keyring.serve_configured()
    said = await written(file)
    agent.keyring.end()
    return said


def test_another_agent_lists_them_while_they_are_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    async def main() -> None:
        said = await seen(monkeypatch, tmp_path, file)
        assert [key["label"] for key in said["tokens"][0]["keys"]] == ["key"]
        agent = waiting(monkeypatch, tmp_path)
        await agent.keyring.serve_configured()
        assert await agent.listed() == ["key"]
        agent.keyring.end()

    run(main())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "tokens": [{"token": 1}]}']
)
def test_a_file_that_is_not_ours_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        write(file, text)
        agent = waiting(monkeypatch, tmp_path)
        await agent.keyring.serve_configured()
        assert await agent.listed() == []
        agent.keyring.end()
        assert "the tokens seen before are unknown" in caplog.text

    run(main())


def test_a_token_that_was_not_seen_for_long_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    async def main() -> None:
        said = await seen(monkeypatch, tmp_path, file)
        said["tokens"][0]["seen"] -= 100 * 24 * 3600
        write(file, json.dumps(said))
        agent = waiting(monkeypatch, tmp_path)
        await agent.keyring.serve_configured()
        assert await agent.listed() == []
        agent.keyring.end()

    run(main())


def test_a_key_that_was_deleted_meanwhile_is_gone_once_the_token_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    async def main() -> None:
        said = await seen(monkeypatch, tmp_path, file)
        hidden = said["tokens"][0]["keys"][0] | {"label": "hidden", "hidden": True}
        hidden["blob"] = base64.b64encode(HIDDEN.blob).decode()
        said["tokens"][0]["keys"].append(hidden)
        write(file, json.dumps(said))
        other = Key("other")
        token = StandInToken(KEY, other)
        agent = waiting(monkeypatch, tmp_path, token)
        await agent.keyring.serve_configured()
        # What it hides until login may be there still.
        assert await agent.listed() == ["key", "hidden", "other"]
        agent.keyring.end()

        token.keys = [other]
        reset = waiting(monkeypatch, tmp_path, token)
        write(file, json.dumps(said))
        await reset.keyring.serve_configured()
        assert await reset.listed() == ["other"]
        reset.keyring.end()

    run(main())
