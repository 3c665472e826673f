"""What happens to a PIN: how often it is sent, when it is asked for, and that it shows nowhere."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import PIN, Token
from rigs.terminal import Done, eventually

REPLUG = Path(sys.executable).with_name("replug")
CKR_OK = 0x0
CKR_PIN_INCORRECT = 0xA0
CKF_USER_PIN_FINAL_TRY = 0x20000
CKF_USER_PIN_LOCKED = 0x40000


@pytest.fixture
def pin_agent(start_agent: StartAgent, faulty: Faulty, askpass: Askpass) -> Agent:
    """The agent under test, allowed to load the counting module and to ask for PINs."""
    return start_agent("-P", "*", env=faulty.env | askpass.env)


def use(agent: Agent, public: Path) -> Done:
    """One signature with the key."""
    return agent.ssh_add("-T", public)


def test_a_wrong_pin_spends_one_try_and_says_so(pin_agent: Agent, faulty: Faulty) -> None:
    assert pin_agent.add_provider(faulty.module, "654321").status == 1

    assert faulty.returns("C_Login") == [CKR_PIN_INCORRECT]
    assert "PIN is wrong" in pin_agent.log
    explained = " ".join(pin_agent.run(REPLUG, "explain").out.split())
    assert 'token "faulty"' in explained
    assert (
        "the PIN is wrong. What to do now: one try was spent; run ssh-add -s again with the right PIN."
        in explained
    )
    # Nothing uses it later, either.
    assert use(pin_agent, faulty.public).status == 1
    assert faulty.returns("C_Login") == [CKR_PIN_INCORRECT]


def test_the_right_pin_after_a_wrong_one(pin_agent: Agent, faulty: Faulty) -> None:
    assert pin_agent.add_provider(faulty.module, "654321").status == 1
    assert pin_agent.add_provider(faulty.module, PIN).status == 0, pin_agent.log
    assert use(pin_agent, faulty.public).status == 0, pin_agent.log
    assert faulty.returns("C_Login") == [CKR_PIN_INCORRECT, CKR_OK]


def test_one_login_serves_all_signatures(pin_agent: Agent, faulty: Faulty, askpass: Askpass) -> None:
    assert pin_agent.add_provider(faulty.module, PIN).status == 0, pin_agent.log

    for _ in range(3):
        assert use(pin_agent, faulty.public).status == 0, pin_agent.log

    assert faulty.returns("C_Login") == [CKR_OK]
    assert askpass.questions == []


def test_without_a_pin_the_first_use_asks_for_it_once(
    pin_agent: Agent, faulty: Faulty, askpass: Askpass
) -> None:
    assert pin_agent.add_provider(faulty.module, "").status == 0, pin_agent.log
    askpass.answers(PIN)

    for _ in range(3):
        assert use(pin_agent, faulty.public).status == 0, pin_agent.log

    assert len(askpass.questions) == 1
    assert "faulty" in askpass.questions[0]
    assert faulty.returns("C_Login") == [CKR_OK]


def test_clients_that_wait_share_one_question_and_one_login(
    pin_agent: Agent, faulty: Faulty, askpass: Askpass
) -> None:
    assert pin_agent.add_provider(faulty.module, "").status == 0, pin_agent.log
    askpass.answers(PIN)

    with ThreadPoolExecutor() as clients:
        uses = list(clients.map(lambda _: use(pin_agent, faulty.public), range(4)))

    assert [done.status for done in uses] == [0] * 4, (uses, pin_agent.log)
    assert len(askpass.questions) == 1
    assert faulty.returns("C_Login") == [CKR_OK]


def test_a_cancelled_question_refuses_and_sends_nothing(
    pin_agent: Agent, faulty: Faulty, askpass: Askpass
) -> None:
    assert pin_agent.add_provider(faulty.module, "").status == 0, pin_agent.log
    askpass.answers(None)

    assert use(pin_agent, faulty.public).status == 1
    assert faulty.returns("C_Login") == []
    assert "cancelled" in pin_agent.log

    askpass.answers(PIN)
    assert use(pin_agent, faulty.public).status == 0, pin_agent.log


def test_a_program_that_always_answers_wrongly_spends_one_try(
    pin_agent: Agent, faulty: Faulty, askpass: Askpass
) -> None:
    assert pin_agent.add_provider(faulty.module, "").status == 0, pin_agent.log
    askpass.answers("654321")

    assert use(pin_agent, faulty.public).status == 1

    assert len(askpass.questions) == 3
    assert "That is the wrong PIN again. It was not sent." in askpass.text
    assert faulty.returns("C_Login") == [CKR_PIN_INCORRECT]
    assert "the wrong PIN was entered again, and not sent again" in pin_agent.log


def test_a_locked_token_is_sent_no_pin(pin_agent: Agent, faulty: Faulty) -> None:
    faulty.tell("flags", f"{CKF_USER_PIN_LOCKED:x}")

    assert pin_agent.add_provider(faulty.module, PIN).status == 1

    assert faulty.returns("C_Login") == []
    assert "PIN is locked" in pin_agent.log


def test_the_last_try_is_only_for_a_pin_typed_at_a_warning(
    pin_agent: Agent, faulty: Faulty, askpass: Askpass
) -> None:
    faulty.tell("flags", f"{CKF_USER_PIN_FINAL_TRY:x}")

    assert pin_agent.add_provider(faulty.module, PIN).status == 1
    assert faulty.returns("C_Login") == []
    assert "one PIN try is left" in pin_agent.log

    assert pin_agent.add_provider(faulty.module, "").status == 0, pin_agent.log
    askpass.answers(PIN)
    assert use(pin_agent, faulty.public).status == 0, pin_agent.log
    assert "LAST TRY" in askpass.text
    assert faulty.returns("C_Login") == [CKR_OK]


def test_a_keypad_is_used_and_nothing_asked(pin_agent: Agent, faulty: Faulty, askpass: Askpass) -> None:
    faulty.tell("keypad", PIN)

    assert pin_agent.add_provider(faulty.module, "").status == 0, pin_agent.log
    assert use(pin_agent, faulty.public).status == 0, pin_agent.log

    assert faulty.returns("C_Login") == [CKR_OK]
    assert askpass.questions == []


def test_a_login_by_keypad_lasts_as_long_as_its_pin_would(
    start_agent: StartAgent, home: Home, faulty: Faulty, askpass: Askpass
) -> None:
    home.configure('modules = []\npin_time_to_live = "1s"')
    agent = start_agent("-P", "*", env=faulty.env | askpass.env)
    faulty.tell("keypad", PIN)
    assert agent.add_provider(faulty.module, "").status == 0, agent.log
    assert use(agent, faulty.public).status == 0, agent.log
    eventually(lambda: "PIN expired" in agent.log, "the end of the login")

    assert use(agent, faulty.public).status == 0, agent.log

    assert faulty.returns("C_Login") == [CKR_OK, CKR_OK]


def test_the_pin_goes_to_the_token_it_was_given_for_only(pin_agent: Agent, faulty: Faulty) -> None:
    """Two tokens in one module, and a PIN without a word about whose it is: none is tried."""
    Token(faulty.home, "second").add("p384")

    pin_agent.add_provider(faulty.module, PIN)

    assert faulty.returns("C_Login") == []
    assert pin_agent.add_provider(f"pkcs11:token=second?module-path={faulty.module}", PIN).status == 0
    assert faulty.returns("C_Login") == [CKR_OK]


def test_a_pin_shows_neither_in_the_log_nor_in_the_process_list(pin_agent: Agent, faulty: Faulty) -> None:
    secret = "correct-horse-battery"
    assert pin_agent.add_provider(faulty.module, secret).status == 1
    assert pin_agent.add_provider(faulty.module, PIN).status == 0

    processes = pin_agent.processes
    shown = [pin_agent.log.encode()]
    for pid in processes:
        shown.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        with contextlib.suppress(PermissionError):  # only root may look: the agent is not dumpable
            shown.append(Path(f"/proc/{pid}/environ").read_bytes())
    assert len(processes) > 1
    for text in shown:
        assert secret.encode() not in text
        assert PIN.encode() not in text


def test_a_label_that_is_not_utf8_does_not_hide_the_key(pin_agent: Agent, faulty: Faulty) -> None:
    faulty.tell("label", b"caf\xe9")

    assert pin_agent.add_provider(faulty.module, PIN).status == 0, pin_agent.log

    [line] = pin_agent.run("sh", "-c", "ssh-add -L | cut -d' ' -f1,2").lines
    assert line == " ".join(faulty.public.read_text().split()[:2])
    assert use(pin_agent, faulty.public).status == 0, pin_agent.log


def test_what_failed_at_login_is_said_as_the_module_said_it(pin_agent: Agent, faulty: Faulty) -> None:
    """The second attempt must not hide the first one's error, and sends no PIN."""
    faulty.tell("C_Login", "fail 0x5")  # CKR_GENERAL_ERROR

    assert pin_agent.add_provider(faulty.module, PIN).status == 1

    assert (
        "the login failed: C_Login: CKR_GENERAL_ERROR (the module gives no reason), which may have"
        in pin_agent.log
    )
    assert faulty.returns("C_Login") == [0x5]


def test_the_end_of_the_agent_is_the_last_line_of_its_log(home: Home, faulty: Faulty) -> None:
    """What the end brings with it, such as the logout, is logged before."""
    agent = Agent(REPLUG.with_name("replug-agent"), home, "-P", "*", env=faulty.env)
    assert agent.add_provider(faulty.module, PIN).status == 0, agent.log

    assert agent.stop() == 2

    lines = [line.split(" ", 3)[-1] for line in agent.log.splitlines()]
    assert lines[-1] == "ended", lines
    assert lines[-2].startswith("token present token="), lines
