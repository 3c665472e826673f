"""Names of providers: what hangs for one purpose is in the way of that purpose alone."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from doubles.stand_ins import run

from replug.agent.keys import provider_names
from replug.agent.keys.provider_names import registered, resolve, resolve_to_remove
from replug.agent.keys.refusal import RequestRefusedError
from replug.token.names.p11kit import ModuleSource
from replug.token.offload import Share, in_daemon_thread


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What is in /dead has to wait for this."""
    hung, realpath = threading.Event(), os.path.realpath

    def waits_for_the_dead(path: str, *, strict: bool = False) -> str:
        if path.startswith("/dead"):
            hung.wait(20)
        return realpath(path, strict=strict)

    monkeypatch.setattr(provider_names.os.path, "realpath", waits_for_the_dead)
    return hung


def test_removals_on_a_dead_mount_keep_nothing_else_waiting(answers: threading.Event) -> None:
    async def main() -> None:
        removals = [asyncio.create_task(resolve_to_remove(f"/dead/{n}.so")) for n in range(12)]
        await asyncio.sleep(0)
        with pytest.raises(RequestRefusedError, match="the file system does not answer"):
            await resolve_to_remove("/dead/more.so")
        # Adding, prompting, reading the configuration.
        assert (await resolve("/usr", "/lib/*"))[0] == [ModuleSource("/usr")]
        for share in Share:
            if share is not Share.REMOVED_PATHS:
                assert await in_daemon_thread(share, lambda: 7) == 7
        answers.set()
        await asyncio.gather(*removals, return_exceptions=True)

    run(main())


def test_additions_on_a_dead_mount_keep_those_of_usual_modules_and_of_tokens_not_waiting(
    answers: threading.Event,
) -> None:
    """Though they are asked for by the same program, ssh-add, and never end."""

    async def main() -> None:
        dead = [f"/dead/{n}.so" for n in range(20)] + ["/usr/../dead/x.so", "pkcs11:?module-path=/dead/x.so"]
        crowd = [asyncio.create_task(resolve(name, "/usr/*")) for name in dead]
        await asyncio.sleep(0)
        with pytest.raises(RequestRefusedError, match="the file system does not answer"):
            await resolve("/home/user/module.so", "/usr/*")
        assert (await resolve("/usr/lib", "/usr/*"))[0] == [ModuleSource("/usr/lib")]
        assert (await resolve("pkcs11:?module-path=/usr/lib", "/usr/*"))[0] == [ModuleSource("/usr/lib")]
        await registered()
        answers.set()
        await asyncio.gather(*crowd, return_exceptions=True)

    run(main())
