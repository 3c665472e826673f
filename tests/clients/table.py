"""The table of the clients and what each can do, as a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clients.all_clients import CLIENTS
from clients.user import FIDO, FILE, FORWARDED, OTHER, RESTRICTED, TOKEN
from rigs.packages import system, versions

from replug.protocol.extensions import SESSION_BIND

_HEAD = """# Clients that were tried

Each brings a document from a real sshd on which one key opens, with each kind of key in turn, by replug and
by OpenSSH's agent beside it. Both times it has to end the same way, after the same requests and replies.
`.ci/run` repeats it; `make clients` does, too, and writes this page.

Keys in files and on a token (SoftHSM) are Ed25519, ECDSA on P-256 and on P-521, and RSA; FIDO keys are
`ed25519-sk` and `ecdsa-sk`, in OpenSSH's software authenticator. "yes" is all of these; programs that run
`ssh` were tried with one key of each place. (Ed25519 on a token is tried with replug only: OpenSSH's agent
takes such keys since 10.1.) The other agent is OpenSSH's with an RSA key: once behind replug (`upstreams`),
once alone.

A key "for this host only" is one added by `ssh-add -h`. It is for clients that prove to the agent which host
they log in at. A client that forwards the agent to a host should say so to the agent: else that host looks
like a program of yours ([security.md](security.md)). It was tried with a signature that the host asks for;
"-" was not tried. "RSA" is the algorithm of RSA signatures that a client asks for. Many servers, among
them OpenSSH's since 8.8, refuse `ssh-rsa`, which is by SHA-1; here sshd accepts it.

"""
_PLACES = {
    FILE: "key in a file",
    TOKEN: "on a token",
    FIDO: "FIDO key",
    OTHER: "of another agent",
    RESTRICTED: "for this host only",
}


@dataclass(frozen=True)
class Outcome:
    """What one visit came to: the document, unless `why_not` says something."""

    place: str
    kind: str
    why_not: str | None
    said: Sequence[str]
    in_flight: int


def document(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """The page; `outcomes` by client."""
    remarks: list[str] = []
    rows = [
        ["", *_PLACES.values(), "says that it forwards", "RSA"],
        ["---"] * (len(_PLACES) + 3),
        *(
            [
                CLIENTS[name].title,
                *(_cell([visit for visit in visits if visit.place == place], remarks) for place in _PLACES),
                *(["by ssh"] * 2 if CLIENTS[name].by_ssh else [_forwarding(visits), _rsa(visits)]),
            ]
            for name, visits in outcomes.items()
        ),
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    notes = "".join(f"{number}. {remark}\n" for number, remark in enumerate(remarks, 1))
    found = versions(package for name in outcomes for package in CLIENTS[name].packages)
    found += sorted(filter(None, (CLIENTS[name].version() for name in outcomes)))
    end = f"On {system()}, with {', '.join(found)}.\n"
    return f"{_HEAD}{table}\n{notes}\n{_habits(outcomes)}\n{end}"


def _cell(visits: Iterable[Outcome], remarks: list[str]) -> str:
    reasons = {visit.why_not for visit in visits if visit.why_not}
    if not reasons:
        return "yes"
    [reason] = reasons
    if reason not in remarks:
        remarks.append(reason)
    return f"no ({remarks.index(reason) + 1})"


def _forwarding(visits: Iterable[Outcome]) -> str:
    forwarded = [visit for visit in visits if visit.place == FORWARDED]
    if not forwarded:
        return "-"
    saying = f"EXTENSION {SESSION_BIND} of a forwarded agent -> SUCCESS"
    return "yes" if all(saying in visit.said for visit in forwarded) else "no"


def _rsa(visits: Iterable[Outcome]) -> str:
    asked = {words for visit in visits if visit.kind == "rsa" for words in visit.said}
    return ", ".join(sorted(re.findall(r"SIGN_RESPONSE (\S+)", "\n".join(asked))))


def _habits(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    said = {words for visits in outcomes.values() for visit in visits for words in visit.said}
    extensions = sorted(set(re.findall(r"EXTENSION (\S+)", "\n".join(said))))
    most = max(visit.in_flight for visits in outcomes.values() for visit in visits)
    return (
        f"Extensions that they send: {', '.join(f'`{name}`' for name in extensions) or 'none'}. "
        f"Requests that one of them has waiting on a connection: {most} at most.\n"
    )
