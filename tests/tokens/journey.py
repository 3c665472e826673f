"""What a user does with a token, from the day it is found to the day its PIN is locked.

`make tokens` runs it on every token there is and makes a table of it (`docs/tried.md`): the first line of
each test is a row. The tests of one token belong together and run in this order, on one agent.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rigs.agent import PIN_PROMPT
from rigs.doctor import Diagnosis
from rigs.key_files import make_key
from rigs.sshd import USER, Server, only
from rigs.terminal import eventually
from rigs.tried import WRONG_PIN
from tokens.user import REPLUG, User, key_lines

Remark = Callable[[str], None]

_HARM = ("Traceback", "Error(", "GeneralError", "DeviceError", "FunctionFailed")
"""What no user can make sense of, and no text of ours contains."""


_NEVER_LOCKS = "it never locks its PIN"


def test_found(user: User, remark: Remark) -> None:
    """found without configuration, PIN asked for once; named by `ssh-add -s` it is the same token"""
    user.askpass.answers(user.token.pin)
    with user.agent_without_configuration() as agent:
        assert key_lines(agent.ssh_add("-L").out) == user.expected_keys, agent.log

        user.must_log_in(agent)

        assert len(user.askpass.questions) == 1, (user.askpass.text, agent.log)
        assert user.status(agent)["state"] == "ready"
        if user.token.bare_module:
            remark("found by itself, and named by p11-kit's proxy only, which is another module")
        else:
            assert agent.add_provider(user.token.module, user.token.pin).status == 0, agent.log
            assert user.status(agent)["state"] == "ready"  # one line says it
    user.askpass.answers(None)
    assert user.token.wrong_pins == 0


def test_added_by_path(user: User, remark: Remark) -> None:
    """`ssh-add -s MODULE`"""
    if user.token.bare_module:
        assert user.agent.add_provider(user.token.bare_module, user.token.pin).status == 1
        assert "C_Initialize" in user.explain()
        remark("by p11-kit's proxy only, because the module needs arguments that p11-kit has")

    done = user.agent.add_provider(user.token.module, user.token.pin)

    assert done.status == 0, (done, user.agent.log)
    assert done.err.splitlines()[-1] == f"Card added: {user.token.module}"
    assert user.token.wrong_pins == 0


def test_listed(user: User) -> None:
    """`ssh-add -l`, `-L`, `-T`"""
    publics = user.token.publics.values()
    prints = {user.home.do("ssh-keygen", "-l", "-f", public).split()[1] for public in publics}

    assert {line.split()[1] for line in user.agent.ssh_add("-l").lines} == prints
    assert key_lines(user.agent.ssh_add("-L").out) == user.expected_keys
    assert user.agent.ssh_add("-T", *publics).status == 0, user.agent.log


def test_login(user: User) -> None:
    """login to sshd, with each key"""
    user.must_log_in()


def test_signs_files(user: User) -> None:
    """`ssh-keygen -Y sign`, with each key"""
    for name in user.token.publics:
        document = user.home.write(f"document-{name}", "to be signed\n")
        done = user.sign(name, document)
        assert done.status == 0, (name, done, user.agent.log)
        good = user.verify(name, document)
        assert good.out.startswith(f'Good "file" signature for {name} with'), good


def test_certifies(user: User) -> None:
    """CA: `ssh-keygen -s KEY.pub -U`"""
    mine = make_key(user.home, "mine")
    for name, ca in user.token.publics.items():
        host = Server(user.home, f"TrustedUserCAKeys {ca}", name=f"trusts-{name}")
        kind = ("-t", "rsa-sha2-256") if ca.read_text().startswith("ssh-rsa") else ()
        done = user.agent.run(
            "ssh-keygen", "-q", "-s", ca, "-U", *kind, "-I", "me", "-n", USER, f"{mine}.pub"
        )
        assert done.status == 0, (name, done, user.agent.log)

        used = host.login(user.agent, "-i", mine, "-o", "IdentityAgent=none")

        assert (used.status, used.out) == (0, f"in {USER}\n"), (name, used, host.log)


def test_two_clients(user: User) -> None:
    """two clients at once"""
    documents = [user.home.write(f"both-{number}", f"number {number}\n") for number in range(2)]
    name = next(iter(user.token.publics))

    def sign_often(number: int) -> None:
        for _ in range(5):
            (user.home.folder / f"both-{number}.sig").unlink(missing_ok=True)
            done = user.sign(name, documents[number])
            assert done.status == 0, (done, user.agent.log)
            assert user.verify(name, documents[number]).status == 0

    with ThreadPoolExecutor() as pool:
        list(pool.map(sign_often, range(2)))


def test_status(user: User) -> None:
    """`replug status`"""
    said = user.status()

    assert (said["state"], said["why"], said["pin_remembered"]) == ("ready", "", True)
    assert len(said["keys"]) == len(user.token.publics)
    text = user.replug("status").out
    assert re.search(rf'Token "{user.token.label}".* is ready\n', text), text
    assert "PIN remembered until the agent ends" in text


def test_doctor(user: User) -> None:
    """`replug doctor`"""
    found = Diagnosis(user.home, user.token.module, env=user.agent.env)

    assert [f for f in found.all("token") + found.all("module") if f.outcome != "ok"] == []
    name = re.escape(f'"{user.token.label}"')
    assert [f for f in found.all("token") if re.search(f"^{name} .*is ready$", f.reason)]


def test_restarted(user: User, remark: Remark) -> None:
    """gone and back before the next request: it signs at once, no PIN asked"""
    if user.token.stays:
        remark(f"never gone: {user.token.stays}")
    wrong = user.token.wrong_pins
    user.token.take_away()
    user.token.bring_back()

    user.must_log_in()

    assert user.askpass.questions == user.askpass.questions[:1]
    assert user.token.wrong_pins == wrong


def test_gone_and_back(user: User, remark: Remark) -> None:
    """gone: refused with the reason; back: it signs at once, no PIN asked"""
    name = next(iter(user.token.publics))
    asked, wrong = user.askpass.text, user.token.wrong_pins
    user.token.take_away()
    if user.token.stays:
        remark(f"never gone: {user.token.stays}")
    try:
        check_gone(user, name)
    finally:
        user.token.bring_back()
    if user.token.found_again:
        remark(user.token.found_again)
        await_listed(user)

    user.must_log_in()

    assert user.askpass.text == asked
    assert user.token.wrong_pins == wrong
    assert user.status()["state"] == "ready"


def await_listed(user: User) -> None:
    """Waits until the agent lists its keys again."""
    eventually(
        lambda: key_lines(user.agent.ssh_add("-L").out) == user.expected_keys, "it is listed", within=4
    )


def check_gone(user: User, name: str) -> None:
    """The refusals while the token is gone, and the words for it."""
    if user.token.stays:
        assert user.log_in(name).status == 0
        return
    begin = time.monotonic()
    assert user.log_in(name).status == 255, user.agent.log
    assert time.monotonic() - begin < 20

    assert user.agent.ssh_add("-l").status in (0, 1)
    explained = user.explain()
    assert not any(word in explained for word in _HARM), explained
    said = user.status()
    assert said["state"] in ("absent", "unreachable"), said
    assert said["why"], said
    diagnosis = Diagnosis(user.home, env=user.agent.env)
    texts = " ".join([explained, said["why"], *(f.reason + f.fix for f in diagnosis.all("token"))])
    assert user.token.plugged or not re.search(r"\bplug\b", texts), texts


def test_interrupted(user: User, remark: Remark) -> None:
    """gone for a moment while two clients sign: it goes on, no PIN asked"""
    name = next(iter(user.token.publics))
    asked, wrong = user.askpass.text, user.token.wrong_pins
    over = threading.Event()
    if user.token.confuses_breaks:
        remark(user.token.confuses_breaks)
        user.askpass.answers(user.token.pin)

    def sign_on() -> int:
        """How often it signed; a request in the middle of it may be refused."""
        signed = 0
        while not over.is_set():
            signed += user.agent.ssh_add("-T", user.token.publics[name]).status == 0
        return signed

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(sign_on) for _ in range(2)]
        try:
            for _ in range(2):
                user.token.interrupt()
        finally:
            over.set()
    assert all(client.result() for client in clients), user.agent.log
    if user.token.found_again:
        await_listed(user)

    user.must_log_in()

    user.askpass.answers(None)
    assert user.askpass.text == asked or user.token.confuses_breaks
    assert user.token.wrong_pins == wrong


def test_wrong_pin(user: User) -> None:
    """one wrong PIN: refused, counted once by the token"""
    assert user.agent.ssh_add("-e", user.token.module).status == 0
    before = user.token.wrong_pins

    done = user.agent.add_provider(user.token.module, WRONG_PIN)

    assert done.status == 1, done
    assert user.token.wrong_pins == before + 1, user.agent.log
    explained = user.explain()
    assert "PIN" in explained
    assert re.search("wrong|rejected|refused the PIN|incorrect", explained), explained
    assert not any(word in explained for word in _HARM), explained


def test_added_by_uri(user: User) -> None:
    """`ssh-add -s pkcs11:token=...`, with the right PIN"""
    wrong = user.token.wrong_pins

    done = user.agent.ssh_add("-s", user.token.uri, typing=[(PIN_PROMPT, user.token.pin)])

    assert done.status == 0, (done, user.agent.log)
    user.must_log_in()
    assert user.token.wrong_pins <= wrong
    assert user.status()["state"] == "ready"


def test_locked(user: User, remark: Remark) -> None:
    """PIN locked by another program: refused with the reason, no PIN sent, no key lost"""
    token = user.token
    if token.unlocking is None:
        for _ in range(15):
            assert token.try_pin(WRONG_PIN) == "CKR_PIN_INCORRECT"
        assert token.try_pin(token.pin) == ""
        remark(_NEVER_LOCKS)
        return
    for _ in range(10):
        if token.try_pin(WRONG_PIN) == "CKR_PIN_LOCKED":
            break
    assert token.try_pin(token.pin) == "CKR_PIN_LOCKED"
    wrong = token.wrong_pins

    done = user.agent.add_provider(token.module, token.pin)

    assert done.status == 1, user.agent.log
    explained = user.explain()
    assert "locked" in explained, explained
    assert token.unlocking in explained, explained
    assert ("PUK" in explained) == token.plugged, explained
    # Some tokens still sign for who was logged in before. Once: questions that are declined are held back.
    user.log_in(next(iter(token.publics)))
    assert token.wrong_pins == wrong
    assert key_lines(user.agent.ssh_add("-L").out) == user.expected_keys


def test_unlocked(user: User, remark: Remark) -> None:
    """unlocked by another program: it signs, PIN asked for at most once"""
    if user.token.unlocking is None:
        remark(_NEVER_LOCKS)
        return
    asked, wrong = len(user.askpass.questions), user.token.wrong_pins
    user.token.unlock()
    user.askpass.answers(user.token.pin)

    user.must_log_in()

    assert len(user.askpass.questions) <= asked + 1, user.askpass.text
    assert user.token.wrong_pins <= wrong
    assert user.status()["state"] == "ready"


def test_new_key(user: User, remark: Remark) -> None:
    """`replug keygen`: a new key is listed at once and logs in"""
    keygen = (REPLUG, "keygen", "--label", "new")
    if user.token.keys_made_elsewhere:
        remark(user.token.keys_made_elsewhere)
        assert user.agent.run(*keygen).status == 1
        return
    asked = user.askpass.text

    done = user.agent.run(*keygen, typing=[("PIN for token", user.token.pin)])

    assert done.status == 0, done
    assert done.out in user.agent.ssh_add("-L").out.splitlines(keepends=True), user.agent.log
    public = user.home.write("new.pub", done.out, 0o644)
    user.server.authorize(public)
    used = user.server.login(user.agent, *only(public))
    assert (used.status, used.out) == (0, f"in {USER}\n"), (used, user.agent.log)
    assert user.askpass.text == asked
