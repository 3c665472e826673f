"""Modules with odd habits, in a worker: each is asked for what OpenSSH's ssh-pkcs11.c asks for at most."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.softhsm_bench import Session, tool
from doubles.stand_ins import ended, run
from rigs.odd import OddModule
from rigs.softhsm import PIN, Token

from replug.token.errors import Verdict, WorkerRefusedError
from replug.token.keys import reading
from replug.token.serving.signing import signature_on

HABITS = [
    "", "one-session", "no-token", "no-sign", "no-always", "whole-or-nothing", "no-sign whole-or-nothing",
    "eager-sign", "no-mechanisms", "one-session no-token no-sign no-always whole-or-nothing eager-sign",
    "removable",
]  # fmt: skip


@pytest.fixture
def odd(odd_built: Path, token: Token, monkeypatch: pytest.MonkeyPatch) -> OddModule:
    """The module with the token of this test, and no habits yet."""
    module = OddModule(odd_built, token.home)
    for name, value in module.env.items():
        monkeypatch.setenv(name, value)
    return module


@pytest.mark.parametrize("habits", HABITS)
def test_a_module_that_openssh_gets_on_with(
    habits: str, odd: OddModule, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_HABITS", habits)
    for kind in ("p256", "rsa2048", "ed25519"):
        token.add(kind)

    async def main() -> None:
        session = await Session.start(module=odd.path)
        assert sorted(key.label for key in await session.keys()) == ["ed25519", "p256", "rsa2048"]
        for key in await session.log_in():
            await session.sign(key)
        await session.end()

    run(main())
    assert odd.calls["C_OpenSession"] == 1
    assert odd.calls["C_Sign"] == 3


def test_a_session_that_was_logged_in_already(
    odd: OddModule, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_HABITS", "logged-in")
    token.add("p256")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        login = await session.worker.login(session.identity, bytearray(PIN.encode()))
        assert not login.proven
        assert [record["signs"] for record in login.records] == [True]
        await session.end()

    run(main())


@pytest.mark.parametrize(
    ("habits", "reason"),
    [
        ("no-session", "C_OpenSession: CKR_SESSION_COUNT (the token allows no more sessions)"),
        ("broken-login", "C_Login: CKR_GENERAL_ERROR (the module gives no reason)"),
        ("gone", "C_GetAttributeValue: CKR_DEVICE_REMOVED (the token was removed while it was used)"),
    ],
)
def test_the_function_and_the_value_of_an_error(
    habits: str, reason: str, odd: OddModule, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that goes while its keys are read is no device without keys."""
    monkeypatch.setenv("ODD_HABITS", habits)
    token.add("p256")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        with pytest.raises(WorkerRefusedError) as caught:  # noqa: PT012 - whichever comes first
            await session.keys()
            await session.log_in()
        assert (caught.value.verdict, caught.value.reason) == (Verdict.FAILED, reason)
        await session.end()

    run(main())


def test_a_key_without_a_mechanism(odd: OddModule, token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_HABITS", "no-ecdsa")
    for kind in ("p256", "ed25519"):
        token.add(kind)

    async def main() -> None:
        session = await Session.start(module=odd.path)
        opened = await session.worker.open(session.identity, None)
        keys, left_out = {}, []
        for _ in reading(opened.records, keys, left_out):
            pass
        assert [key.label for key in keys.values()] == ["ed25519"]
        [left] = left_out
        assert (left.label, "CKM_ECDSA" in left.reason) == ("p256", True)
        await session.end()

    run(main())


def test_keys_that_share_id_and_label(odd: OddModule, token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_HABITS", "same-names")
    for number in range(3):
        token.add("p256", f"p256-{number}")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        keys = await session.log_in()
        assert [key.label for key in keys] == ["same"] * 3
        for _ in range(2):
            for key in keys:
                await signature_on(session.worker, session.identity, key, key.public.algorithm, b"data", None)
        # Which private key is whose was found out once.
        assert 3 + 3 <= odd.calls["C_Sign"] <= 3 + 3 + 3
        await session.end()

    run(main())


@pytest.mark.parametrize("count", [1, 20])
def test_what_reading_a_token_costs(count: int, odd: OddModule, token: Token) -> None:
    """ssh-pkcs11.c calls C_GetAttributeValue three times for each public key, and finds one object a call."""
    for number in range(count):
        token.add("p256", f"key-{number}")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        await session.log_in()
        assert odd.calls["C_GetAttributeValue"] == 3 * count
        assert odd.calls["C_FindObjectsInit"] == 6
        assert odd.calls["C_OpenSession"] == odd.calls["C_Login"] == 1
        assert len(await session.keys()) == count
        assert odd.calls["C_GetAttributeValue"] == 3 * count
        await session.end()

    run(main())


@pytest.mark.parametrize(
    ("habits", "calls"),
    [
        ("", ["C_SignInit", "C_Sign"]),
        ("removable", ["C_GetSlotList", "C_GetSlotList", "C_SignInit", "C_Sign"]),
    ],
)
def test_what_a_signature_costs(
    habits: str, calls: list[str], odd: OddModule, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_HABITS", habits)
    token.add("p256")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        [key] = await session.log_in()
        odd.forget_calls()
        await session.sign(key)
        assert odd.sequence == calls
        await session.end()

    run(main())


def test_what_a_signature_with_the_pin_costs(odd: OddModule, token: Token) -> None:
    token.generate("EC:prime256v1", "careful", "--always-auth")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        [key] = await session.log_in()
        odd.forget_calls()
        await session.worker.flags(session.identity)
        await session.sign(key, pin=bytearray(PIN.encode()))
        assert odd.sequence == ["C_GetTokenInfo", "C_GetAttributeValue", "C_SignInit", "C_Login", "C_Sign"]
        await session.end()

    run(main())


def test_one_key_of_many(odd: OddModule, token: Token) -> None:
    """A fresh worker that is to make one signature reads one key."""
    for number in range(20):
        token.add("p256", f"key-{number}")

    async def main() -> None:
        first = await Session.start(module=odd.path)
        key = (await first.keys())[7]
        await first.end()
        second = await Session.start(module=odd.path)
        odd.forget_calls()
        opened = await second.worker.open(second.identity, None, key.key_id)
        assert [record["reference"] for record in opened.records] == [key.reference]
        login = await second.worker.login(second.identity, bytearray(PIN.encode()), key.key_id)
        assert [record["signs"] for record in login.records] == [True]
        await second.sign(key)
        assert odd.calls["C_GetAttributeValue"] == 3
        other = (await second.keys())[11]
        await second.sign(other)
        await second.end()

    run(main())


# Its end.


def test_the_end_is_orderly(odd: OddModule, token: Token) -> None:
    token.add("p256")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        await session.log_in()
        odd.forget_calls()
        session.worker.end()
        assert not session.worker.alive
        await session.worker.wait_for_end()
        assert odd.sequence == ["C_Logout", "C_CloseSession", "C_Finalize"]
        await ended(session.worker.pid)

    run(main())


def test_an_end_that_takes_long_is_hurried(
    odd: OddModule, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_HABITS", "slow-end")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        session.worker.end()
        await session.worker.wait_for_end()
        await ended(session.worker.pid)
        assert odd.calls["C_Finalize"] == 1

    run(main())


def test_a_worker_that_is_killed_ends_nothing(odd: OddModule, token: Token) -> None:
    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        await session.end()
        assert odd.calls["C_Finalize"] == 0

    run(main())


def test_a_session_that_has_changed_is_sent_no_pin(odd: OddModule, token: Token) -> None:
    """The key that was read first is compared before each login."""
    token.add("p256")

    async def main() -> None:
        session = await Session.start(module=odd.path)
        await session.keys()
        await session.worker.flags(session.identity)
        tool(token, "--delete-object", "--type", "pubkey", "--label", "p256")
        with pytest.raises(WorkerRefusedError, match="another key than before"):
            await session.worker.flags(session.identity)
        await session.end()

    run(main())


def test_p11_kits_proxy_gives_each_caller_functions_of_its_own(token: Token) -> None:
    """Sessions that python-pkcs11 opened are unknown to those that anybody else gets."""
    token.add("p256")
    [proxy] = Path("/usr/lib").glob("*/p11-kit-proxy.so")

    async def main() -> None:
        session = await Session.start(module=proxy)
        await session.keys()
        [key] = await session.log_in()
        await session.sign(key)
        await session.end()

    run(main())
