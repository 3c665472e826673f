"""`replug history`: the journal's lines, and which of them are meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from replug.agent.commands import known_host_keys, logs
from replug.agent.commands.history import of_journal, signatures
from replug.agent.commands.main import main

KEY = "SHA256:" + "k" * 43


def entry(message: object, when: int = 1_700_000_000_000_000) -> bytes:
    return json.dumps({"MESSAGE": message, "__REALTIME_TIMESTAMP": str(when)}).encode() + b"\n"


def signed(comment: str, host: str = "") -> str:
    return f"signed key={KEY} token=memory program=ssh purpose=p {host and f'host={host} '}comment={comment}"


def test_signatures_are_found_among_all_that_the_journal_has() -> None:
    lines = [
        entry("started socket=/run/agent"),
        b"no JSON\n",
        entry(None),
        entry(list(signed("a").encode())),
        entry(f"refused purpose=x why=\"signed key={KEY}\""),
        entry(signed("b"), 1_700_000_001_500_000),
    ]  # fmt: skip
    found = list(signatures(of_journal(lines), None, None))
    assert [(one["comment"], one["time"]) for one in found] == [
        ("a", 1_700_000_000.0),
        ("b", 1_700_000_001.5),
    ]


def test_a_host_is_found_by_a_name_that_known_hosts_has_as_a_hash_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"server1 {key.with_suffix('.pub').read_text()}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known_hosts], check=True, capture_output=True)
    assert "server1" not in known_hosts.read_text()
    monkeypatch.setattr(known_host_keys, "default_files", lambda: [str(known_hosts), "/nowhere"])
    told = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout
    fingerprint = told.split()[1]

    events = [
        entry(signed("there", fingerprint)),
        entry(signed("elsewhere", "SHA256:x")),
        entry(signed("none")),
    ]
    for host, expected in (("server1", ["there"]), ("server2", []), (fingerprint, ["there"]), ("-l", [])):
        assert [one["comment"] for one in signatures(of_journal(events), None, host)] == expected, host


@pytest.mark.parametrize(
    ("host", "found"),
    [("server1", True), ("10.0.*", True), ("server", False), ("SERVER1", False)],
)
def test_a_host_is_found_by_the_names_it_had(host: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_host_keys, "default_files", list)
    events = [entry(signed("c", "server1,10.0.0.5,SHA256:x"))]
    assert bool(list(signatures(of_journal(events), None, host))) is found


def test_without_a_journal_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "_JOURNAL", "/nowhere")
    assert main(["history"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "replug history --file FILE" in err


def test_the_journal_is_not_asked_for_a_time_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["history", "--file", "x", "--since", "today"])
    assert "--since is for the journal" in capsys.readouterr().err


def test_long_lines_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """journalctl(1): of a field of more than 4096 bytes JSON has nothing, unless with --all."""
    long = entry(signed('"' + "\\U000e0001" * 500 + '" duration_ms=' + "9" * 5000)).decode()
    script = tmp_path / "journalctl"
    script.write_text(f"#!/bin/sh\ncase \"$*\" in *--all*) cat <<'END'\n{long}END\nesac\n")
    script.chmod(0o700)
    monkeypatch.setattr(logs, "path_of_journalctl", lambda: str(script))
    assert main(["history", "--json"]) == 0
    [one] = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["key"], len(one["comment"]), one["duration_ms"]) == (KEY, 500, None)
