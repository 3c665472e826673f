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
from replug.agent.keys import token_memory

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


NESTED = "[" * 100_000
WRONG = {"copy": {"copy": float("inf")}, "label": {"label": "\ud800"}, "long": {"serial": "1" * 1000}}
WRONG_KEY = {
    "surrogate": {"label": "\ud800"},
    "id": {"id": "00" * 2000},
    "reference": {"reference": "r" * 1000},
}


def test_a_file_that_is_nested_too_deep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test_a_file_that_is_not_ours_is_not_used(monkeypatch, tmp_path, file, NESTED, caplog)


@pytest.mark.parametrize(
    ("token", "key"),
    [*((wrong, {}) for wrong in WRONG.values()), *(({}, wrong) for wrong in WRONG_KEY.values())],
    ids=[*WRONG, *WRONG_KEY],
)
def test_nothing_in_the_file_keeps_the_tokens_from_being_served(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: Path,
    token: dict[str, Any],
    key: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        said = await seen(monkeypatch, tmp_path, file)
        [wrong] = said["tokens"]
        wrong["token"] |= {"label": "another"} | token
        wrong["keys"][0] |= {"blob": base64.b64encode(HIDDEN.blob).decode()} | key
        write(file, json.dumps(said))
        agent = waiting(monkeypatch, tmp_path, StandInToken(KEY))
        await agent.keyring.serve_configured()
        assert await agent.listed() == ["key"]
        agent.keyring.end()
        assert "the tokens seen before are unknown" in caplog.text

    run(main())


def test_a_time_without_end_is_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        said = await seen(monkeypatch, tmp_path, file)
        said["tokens"][0] |= {
            "seen": float("inf"),
            "token": said["tokens"][0]["token"] | {"label": "another"},
        }
        write(file, json.dumps(said))
        agent = waiting(monkeypatch, tmp_path, StandInToken(KEY))
        await agent.keyring.serve_configured()
        async with asyncio.timeout(10):
            while len(read(file)["tokens"]) < 2:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)
        agent.keyring.end()

    run(main())


def test_keys_are_remembered_up_to_a_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    """Each costs at every change, and a module may show any number of tokens."""
    monkeypatch.setattr(token_memory, "_MOST_KEYS", 3)

    async def main() -> None:
        said = await seen(monkeypatch, tmp_path, file)
        [token] = said["tokens"]
        said["tokens"] = [token | {"token": token["token"] | {"serial": str(copy)}} for copy in range(5)]
        write(file, json.dumps(said))
        agent = waiting(monkeypatch, tmp_path)
        await agent.keyring.serve_configured()
        assert len(agent.keyring.tokens()) == 3
        agent.keyring.end()

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
