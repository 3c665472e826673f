"""`replug keygen`: a key made on a token with the user's PIN, listed at once; and what it refuses."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from doubles.softhsm_bench import tool
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server, only
from rigs.terminal import Done

REPLUG = Path(sys.executable).with_name("replug")
WRONG = "654321"
ASKED = "PIN for token"
CKR_OK = 0x0
CKR_PIN_INCORRECT = 0xA0
CKF_WRITE_PROTECTED = 0x2
CKF_USER_PIN_FINAL_TRY = 0x20000
CKF_USER_PIN_LOCKED = 0x40000
TYPES = {
    "ecdsa-p256": "ecdsa-sha2-nistp256",
    "ecdsa-p384": "ecdsa-sha2-nistp384",
    "ed25519": "ssh-ed25519",
    "rsa2048": "ssh-rsa",
    "rsa3072": "ssh-rsa",
}


@pytest.fixture
def token(home: Home) -> Token:
    """A new token."""
    return Token(home)


@pytest.fixture
def agent(home: Home, token: Token, askpass: Askpass, start_agent: StartAgent) -> Agent:
    """An agent that serves it."""
    home.configure(f'modules = ["{MODULE}"]')
    return start_agent(env=askpass.env)


def typed(*pins: str) -> list[tuple[str, str]]:
    """One prompt, and one more for each wrong PIN."""
    return [("Wrong PIN." if number else ASKED, pin) for number, pin in enumerate(pins)]


def objects(token: Token) -> str:
    """What pkcs11-tool says of them."""
    done = token.home.run(
        "pkcs11-tool", "--module", MODULE, "--token-label", token.label, "--login", "--pin", PIN,
        "--list-objects",
    )  # fmt: skip
    assert done.status == 0, done
    return done.out


@pytest.mark.parametrize("kind", TYPES)
def test_a_new_key_is_listed_at_once_and_logs_in(
    kind: str, agent: Agent, token: Token, server: Server, home: Home, askpass: Askpass
) -> None:
    assert agent.ssh_add("-L").status == 1

    made = agent.run(REPLUG, "keygen", "--type", kind, "--label", "my laptop", typing=typed(PIN))

    assert made.status == 0, made
    assert re.fullmatch(rf"{TYPES[kind]} [A-Za-z0-9+/=]+ my laptop\n", made.out), made
    assert agent.ssh_add("-L").out == made.out
    assert "Access:     sensitive, always sensitive, never extractable, local" in objects(token)
    public = home.write("made.pub", made.out, 0o644)
    server.authorize(public)
    askpass.answers(PIN)
    done = server.login(agent, *only(public))
    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, agent.log)


def test_an_id_that_is_taken_is_refused_before_the_pin_is_asked_for(home: Home, token: Token) -> None:
    home.configure(f'modules = ["{MODULE}"]')
    token.add("p256")
    before = objects(token)

    done = home.run(REPLUG, "keygen", "pkcs11:id=%01")  # without a terminal: nobody can be asked

    assert done.status == 1
    assert "something on it has the id %01 already, and nothing is overwritten" in done.err
    assert objects(token) == before


def test_an_id_that_only_a_private_object_has_is_taken(home: Home, token: Token) -> None:
    """It shows after the login, and is passed over where no id is given."""
    home.configure(f'modules = ["{MODULE}"]')
    token.add("p256")
    tool(token, "--delete-object", "--type", "pubkey", "--id", "01")

    refused = home.run(REPLUG, "keygen", "pkcs11:id=%01", typing=typed(PIN))
    assert refused.status == 1
    assert "has the id %01 already" in refused.err
    made = home.run(REPLUG, "keygen", typing=typed(PIN))
    assert made.status == 0, made
    assert "with the id %02 on" in made.err


def test_the_id_that_is_given(home: Home, token: Token) -> None:
    home.configure(f'modules = ["{MODULE}"]')
    assert home.run(REPLUG, "keygen", "pkcs11:id=%A7%01;object=mine", typing=typed(PIN)).status == 0
    assert "ID:         a701" in objects(token)
    assert "label:      mine" in objects(token)


def keygen(faulty: Faulty, *arguments: str, pins: Sequence[str] = ()) -> Done:
    """On the token of the steered module, with its name alone."""
    uri = f"pkcs11:token=faulty?module-path={faulty.module}"
    return faulty.home.run(REPLUG, "keygen", uri, *arguments, env=faulty.env, typing=typed(*pins))


def test_a_wrong_pin_is_said_and_may_be_typed_again(faulty: Faulty) -> None:
    done = keygen(faulty, pins=[WRONG, PIN])
    assert done.status == 0, done
    assert faulty.returns("C_Login") == [CKR_PIN_INCORRECT, CKR_OK]


def test_wrong_pins_are_sent_once_each_and_not_without_end(faulty: Faulty) -> None:
    done = keygen(faulty, pins=["111111", "222222", "333333"])
    assert done.status == 1
    assert "the PIN is wrong" in done.err
    assert faulty.returns("C_Login") == [CKR_PIN_INCORRECT] * 3
    assert faulty.entered("C_GenerateKeyPair") == 0


def test_a_wrong_pin_that_is_typed_twice_is_sent_once(faulty: Faulty) -> None:
    uri = f"pkcs11:token=faulty?module-path={faulty.module}"
    typing = [(ASKED, WRONG), ("Wrong PIN.", WRONG), ("not sent", PIN)]
    done = faulty.home.run(REPLUG, "keygen", uri, env=faulty.env, typing=typing)
    assert done.status == 0, done
    assert faulty.returns("C_Login") == [CKR_PIN_INCORRECT, CKR_OK]


def test_a_prompt_that_is_cancelled_makes_nothing(faulty: Faulty) -> None:
    done = keygen(faulty, pins=["\x03"])
    assert done.status == 1
    assert "the PIN prompt was cancelled" in done.err
    assert (faulty.entered("C_Login"), faulty.entered("C_GenerateKeyPair")) == (0, 0)


def test_a_locked_token_is_sent_no_pin(faulty: Faulty) -> None:
    faulty.tell("flags", f"{CKF_USER_PIN_LOCKED:x}")
    done = keygen(faulty)
    assert done.status == 1
    assert "the PIN is locked; the security officer can set a new one" in done.err
    assert faulty.entered("C_Login") == 0


def test_the_last_try_is_warned_of(faulty: Faulty) -> None:
    faulty.tell("flags", f"{CKF_USER_PIN_FINAL_TRY:x}")
    uri = f"pkcs11:token=faulty?module-path={faulty.module}"
    last = [("LAST TRY: a wrong PIN locks the token.", PIN)]
    done = faulty.home.run(REPLUG, "keygen", uri, env=faulty.env, typing=last)
    assert done.status == 0, done
    assert faulty.returns("C_Login") == [CKR_OK]


def test_a_keypad_is_used_and_said(faulty: Faulty) -> None:
    faulty.tell("keypad", PIN)
    done = keygen(faulty)
    assert done.status == 0, done
    assert "enter the PIN on its keypad" in done.err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (0x31, "the token has no room for another key; delete what is no longer needed"),
        (0x103, "only its security officer may make keys; use the tool of its maker"),
        (0x140, "the token cannot make keys of this type; choose another one with --type"),
        (0xE2, "the token is write-protected"),
    ],
)
def test_what_the_token_says_is_said_in_words(error: int, words: str, faulty: Faulty) -> None:
    faulty.tell("C_GenerateKeyPair", f"fail {error:x}")
    done = keygen(faulty, pins=[PIN])
    assert (done.status, done.out) == (1, "")
    assert words in done.err
    assert faulty.entered("C_GenerateKeyPair") == 1


def test_a_write_protected_token_is_known_before_the_pin_is_asked_for(faulty: Faulty) -> None:
    faulty.tell("flags", f"{CKF_WRITE_PROTECTED:x}")
    done = keygen(faulty)
    assert done.status == 1
    assert "the token is write-protected" in done.err
    assert faulty.entered("C_Login") == 0


def test_a_key_that_does_not_sign_is_not_given_out(faulty: Faulty) -> None:
    faulty.tell("C_Sign", "fail 5")
    done = keygen(faulty, pins=[PIN])
    assert (done.status, done.out) == (1, "")
    assert "the key with the id %02 was made, but it does not sign: C_Sign: CKR_GENERAL_ERROR" in done.err


def test_of_several_tokens_one_is_named(home: Home, token: Token) -> None:
    home.configure(f'modules = ["{MODULE}"]')
    Token(home, "second one")
    done = home.run(REPLUG, "keygen")
    assert done.status == 1
    uris = re.findall(r"'(pkcs11:[^']+)'", done.err)
    assert len(uris) == 2
    second = next(uri for uri in uris if "second%20one" in uri)
    assert home.run(REPLUG, "keygen", second, typing=typed(PIN)).status == 0
    assert objects(token) == ""


def test_without_an_agent_or_with_a_locked_one_the_key_is_made_and_it_is_said(
    agent: Agent, home: Home
) -> None:
    alone = home.run(REPLUG, "keygen", typing=typed(PIN))
    assert alone.status == 0, alone
    assert "no agent lists the key yet: SSH_AUTH_SOCK is not set" in alone.err

    lock = [("Enter lock password: ", "sesame"), ("Again: ", "sesame")]
    assert agent.ssh_add("-x", typing=lock).status == 0
    done = agent.run(REPLUG, "keygen", typing=typed(PIN))
    assert done.status == 0, done
    assert "the agent does not list the key yet: the agent is locked" in done.err


def test_a_token_that_the_agent_does_not_serve(start_agent: StartAgent, faulty: Faulty) -> None:
    agent = start_agent()
    uri = f"pkcs11:?module-path={faulty.module}"
    env = faulty.env | agent.env
    done = agent.home.run(REPLUG, "keygen", uri, env=env, typing=typed(PIN))
    assert done.status == 0, done
    assert f"to serve it: ssh-add -s {shlex.quote(str(faulty.module))}" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pkcs11:token"], "pkcs11:token is not a PKCS#11 URI"),
        (["pkcs11:token=other"], "no such token is present"),
        (["pkcs11:?module-path=/nonexistent.so"], "/nonexistent.so does not exist"),
        (["--label", "two\nlines"], "a label has at most"),
        (["pkcs11:?module-path=/etc/passwd"], "is not a PKCS#11 module"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], words: str, home: Home, token: Token) -> None:
    home.configure(f'modules = ["{MODULE}"]')
    done = home.run(REPLUG, "keygen", *arguments)
    assert done.status == 1
    assert words in done.err
    assert "Traceback" not in done.err


def test_without_any_module(home: Home) -> None:
    done = home.run(REPLUG, "keygen")
    assert (done.status, done.err) == (
        1,
        "replug: no module is known; name one: 'pkcs11:?module-path=/path/to/module.so'\n",
    )
