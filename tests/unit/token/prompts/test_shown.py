"""Names in questions: what is shown of them, and that they leave room for what the agent knows."""

from __future__ import annotations

import pytest

from replug.protocol.known_hosts import KnownAs
from replug.protocol.purpose import Host, Login, Purpose
from replug.protocol.purpose_text import in_lines
from replug.token.identity import TokenFlag, TokenId
from replug.token.prompts import assuan
from replug.token.prompts.request import Asker, ConfirmRequest, PinRequest
from replug.token.prompts.shown import asked, shown


@pytest.mark.parametrize(
    "name",
    [
        "work key",
        "Schlüssel für Büro",
        "e\N{COMBINING ACUTE ACCENT}",
        "कुंजी",
        "กุญแจ",
        "מפתח",
        "鍵",
        '"quoted"',
        "🔑",
    ],
)
def test_names_people_give_are_shown_as_they_are(name: str) -> None:
    assert shown(name) == name.replace("e\N{COMBINING ACUTE ACCENT}", "é")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\nb", r'"a\x0ab"'),
        ("\u2800", r'"\u2800"'),
        ("a\u3164", r'"a\u3164"'),
        ("id\u034f", r'"id\u034f"'),
        ("id\ufe00", r'"id\ufe00"'),
        ("id\U000e0100", r'"id\U000e0100"'),
        ("a\u00a0b", r'"a\u00a0b"'),
        ("a\u202eb", r'"a\u202eb"'),
        ("x\u0316\u0317\u0318", r'"x\u0316\u0317\u0318"'),
        ("a\udcff", r'"a\xff"'),
        ("x" * 81, "x" * 79 + "…"),
        ("鍵" * 40, "鍵" * 31 + "…"),
        ("%" * 40, "%" * 31 + "…"),
    ],
)
def test_what_hides_covers_or_pushes_is_not(name: str, expected: str) -> None:
    assert shown(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ada <ada@example.com>", "Ada \u2039ada@example.com\u203a"),
        ("<font size=0>", "\u2039font size=0\u203a"),
        ("a&lt;b &&lt;lt;b>", "a\u2039b &\u2039lt;b\u203a"),
    ],
)
def test_nothing_in_the_first_line_of_a_question_is_markup(name: str, expected: str) -> None:
    assert asked(name) == expected
    request = ConfirmRequest(name, "SHA256:x", Asker())
    assert request.text().startswith(f"Allow use of key {expected}?\n")
    token = TokenId(manufacturer="m", model="m", serial="1", label=name)
    facts = PinRequest(token, TokenFlag(0), name, Asker()).facts()
    assert expected in facts[0]
    assert "<" not in facts[0]


@pytest.mark.parametrize("name", ["x" * 500, "%" * 500, "鍵" * 500, "\u2800" * 500, "\u0301" * 500])
def test_what_the_agent_knows_is_never_cut_from_a_pinentrys_line(name: str) -> None:
    """All that is chosen by others is as long as it can be, and the user's own host names are usual ones."""
    names = ("server-1.department.example.com", "192.0.2.1", "[2001:db8::1]:2222")
    hosts = [Host(bytes([number]) * 51, KnownAs(names=names)) for number in range(4)]
    purpose = Purpose(Login(hosts[0], name), tuple(hosts[1:]), False)
    request = ConfirmRequest(name, f"SHA256:{'x' * 43}", Asker(name, None, tuple(in_lines(purpose))))

    sent = assuan._escaped(request.text(), assuan._LONGEST_LINE - len("SETDESC") - 2)

    lines = sent.split("%0A")
    assert lines[1] == f"Key fingerprint SHA256:{'x' * 43}."
    assert lines[2:5] == in_lines(purpose)[:3]
    assert lines[5].startswith("as ")
    assert len(f"SETDESC {sent}\n".encode()) <= assuan._LONGEST_LINE
