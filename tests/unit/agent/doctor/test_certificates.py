"""What `replug doctor` says of rules for certificates: the clock, and CA keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.model import Config
from replug.agent.doctor.certificates import check_certificates, check_clock, check_rules
from replug.agent.doctor.finding import Finding, Outcome
from replug.agent.doctor.machine import Machine
from replug.agent.doctor.socket import SocketReport

CA = "SHA256:one"
RULES = Config(certificate_rules=(CertificateRule((CA,), ("*",), ("root",)),))
RULE = {"ca": [CA], "hosts": ["*"], "serial": None, "failed": "", "next_step": ""}
SERVED = {"tokens": [{"keys": [{"fingerprint": CA}]}]}


def told(machine: Machine, **facts: Any) -> Machine:
    """The same machine, some of whose facts are known already."""
    known = replace(machine)
    vars(known).update(facts)
    return known


@pytest.mark.parametrize(
    ("config", "state", "outcomes"),
    [
        (Config(), 5, []),
        (RULES, 5, [Outcome.WARN]),
        (RULES, 0, [Outcome.OK]),
        (RULES, 1, [Outcome.OK]),  # a leap second is to come
        (RULES, None, []),
    ],
)
def test_the_clock(machine: Machine, config: Config, state: int | None, outcomes: list[Outcome]) -> None:
    found = check_clock(told(machine, config=config, clock_state=state))
    assert [one.outcome for one in found] == outcomes


def test_the_kernel_is_asked(machine: Machine) -> None:
    assert machine.clock_state in range(6)


@pytest.mark.parametrize(
    ("status", "outcome", "words"),
    [
        (SERVED | {"certificates": [RULE]}, "ok", "the CA key for * is there"),
        ({"software_keys": [{"fingerprint": CA}], "certificates": [RULE]}, "ok", "the CA key for * is there"),
        ({"security_keys": [{"fingerprint": CA}], "certificates": [RULE]}, "ok", "the CA key for * is there"),
        ({"tokens": [{"keys": []}], "certificates": [RULE]}, "warn", f"has the CA key {CA}"),
        (SERVED | {"certificates": [RULE | {"failed": "it is out"}]}, "warn", "none for *: it is out"),
        (SERVED | {"certificates": [RULE | {"failed": "it is out", "serial": 1}]}, "ok", "is there"),
    ],
)
def test_ca_keys(machine: Machine, status: dict[str, Any], outcome: str, words: str) -> None:
    report = SocketReport(path="/run/agent", status=status)
    found: Finding
    (found,) = check_certificates(told(machine, agent=report))
    assert (found.check, found.outcome) == ("certificate", outcome)
    assert words in found.reason


def test_a_ca_key_without_a_rule_of_its_own(machine: Machine) -> None:
    (found,) = check_rules(told(machine, config=RULES))
    assert (found.check, found.outcome) == ("ca-rule", "warn")
    assert CA in found.reason
    ruled = replace(RULES, cas=(CaEntry(CA, 600, ("root",)),))
    assert [*check_rules(told(machine, config=ruled))] == []
