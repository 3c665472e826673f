"""What `replug doctor` says of a service for other users."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from typing import Any

import pytest

from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.model import Config
from replug.agent.control import places
from replug.agent.doctor import polkit
from replug.agent.doctor.guests import check_guests
from replug.agent.doctor.machine import Machine
from replug.agent.doctor.prompt import check_prompt
from replug.agent.doctor.socket import SocketReport

CA = "SHA256:one"
OURS = pwd.getpwuid(os.getuid()).pw_name
TOKEN = {"label": "ca", "pin_remembered": True, "pin_configured": False, "keys": [{"fingerprint": CA}]}


def examined(machine: Machine, *users: str, **status: Any) -> list[tuple[str, str]]:
    """The findings, for a rule that names these users."""
    known = replace(machine)
    rule = CertificateRule((CA,), ("*",), ("root",), users=users)
    said = {"no_guests": "", "tokens": [TOKEN], **status}
    vars(known).update(
        config=Config(certificate_rules=(rule,)), agent=SocketReport(path="/run/agent", status=said)
    )
    return [(str(one.outcome), one.reason) for one in check_guests(known)]


def test_users_and_groups_exist(machine: Machine) -> None:
    assert examined(machine, OURS, "@root") == [("ok", f"certificates can be made for {OURS}, @root")]
    assert examined(machine, "no.such.user", "@no.such.group") == [
        ("warn", "there is no user no.such.user"),
        ("warn", "there is no group no.such.group"),
    ]
    assert examined(machine) == []


def test_users_are_told_apart(machine: Machine) -> None:
    assert examined(machine, OURS, no_guests="it is in a user namespace") == [
        ("fail", "other users are refused: it is in a user namespace")
    ]


@pytest.mark.parametrize(("remembered", "configured", "known"), [(1, 0, 1), (0, 1, 1), (0, 0, 0)])
def test_the_pin_is_known(machine: Machine, remembered: bool, configured: bool, known: bool) -> None:
    token = TOKEN | {"pin_remembered": bool(remembered), "pin_configured": bool(configured)}
    (found,) = examined(machine, OURS, tokens=[token])
    assert found[0] == ("ok" if known else "warn")
    assert ("nobody has given its PIN" in found[1]) == (not known)


def test_as_root_all_is_about_the_services_user(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    service = replace(machine, environment={"SSH_AUTH_SOCK": places.SYSTEM_SOCKET})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert service.is_system_service
    assert "50-pcscd-replug-ca.rules" in polkit.permit_user_of(service)
    assert [*check_prompt(service)] == []
    assert not machine.is_system_service
    assert "replug-ca" not in polkit.permit_user_of(machine)


def test_replug_is_about_the_service_for_root_unless_another_agent_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    there = str(tmp_path / "agent.sock")
    monkeypatch.setattr(places, "SYSTEM_SOCKET", there)

    def chosen(uid: int, **environment: str) -> dict[str, str]:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        places.choose_system_service(environment)
        return environment

    assert chosen(0) == {}
    (tmp_path / "agent.sock").touch()
    ours = {"SSH_AUTH_SOCK": there, **places.SYSTEM_ENVIRONMENT}
    assert chosen(0) == ours
    assert chosen(0, SSH_AUTH_SOCK=there) == ours
    assert chosen(0, SSH_AUTH_SOCK="/another") == {"SSH_AUTH_SOCK": "/another"}
    assert chosen(tmp_path.stat().st_uid) == ours
    assert chosen(4711) == {}
    assert chosen(4711, SSH_AUTH_SOCK=there) == {"SSH_AUTH_SOCK": there}
