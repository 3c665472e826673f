"""`replug ca`: the CA keys that servers are to trust, certificates by them, and revoking these."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from replug.agent.commands.command import Commands

if TYPE_CHECKING:
    from replug.agent.ca.authority import Authority
    from replug.agent.ca.journal import Issued

_PATIENCE = 120.0  # seconds for the agent to read its tokens, if it was just started
_DIGITS = 20  # of the largest serial number
_OTHERWISE = "revoke by the fingerprint of what was certified, see replug ca issued --json"
_KRL_OF_SERVICE = Path("/etc/replug/revoked.krl")
_STATE = "the state folder of replug, normally ~/.local/state/replug"


class _RefusedError(Exception):
    """What is wanted cannot be; the text is for the user."""


def add_parser(commands: Commands) -> None:
    """Add `ca` to the commands of `replug`."""
    parser = commands.add_parser(
        "ca", help="certificates by CA keys ([[ca]] in config.toml): trust, issue, list, revoke"
    )
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)

    trust = actions.add_parser("trust", help="print the CA keys, for TrustedUserCAKeys of servers")
    trust.add_argument(
        "--host", action="store_true", help="those for hosts, as lines of ssh's known_hosts file"
    )

    issue = actions.add_parser("issue", help="certify a public key through the agent, by ssh-keygen")
    issue.add_argument(
        "key",
        metavar="KEY.pub",
        type=Path,
        nargs="?",
        help="the public key; KEY-cert.pub is written. Without it, and without options: new certificates for"
        " all certificate_file of config.toml",
    )
    issue.add_argument("-n", dest="names", metavar="NAMES", help="the principals, separated by commas")
    issue.add_argument(
        "-V", dest="validity", metavar="TIME", help="the validity, such as +10m; default: as long as allowed"
    )
    issue.add_argument("-I", dest="key_id", metavar="ID", help="the key id; default: you@this-machine")
    issue.add_argument("-z", dest="serial", metavar="N", type=_serial, help="the serial; default: the time")
    issue.add_argument(
        "-O", dest="options", metavar="OPTION", action="append", default=[], help="as for ssh-keygen"
    )
    issue.add_argument("--host", action="store_true", help="a host certificate")
    issue.add_argument("--ca", metavar="SHA256:...", help="the CA key; default: the first that may sign it")

    issued = actions.add_parser("issued", help="list the certificates that were issued on this machine")
    issued.add_argument("--user", metavar="NAME", help="those that this user asked for")
    issued.add_argument("--json", action="store_true", help="print JSON, an object a line")

    revoke = actions.add_parser("revoke", help="add certificates to a list for RevokedKeys of servers")
    revoke.add_argument(
        "certificates",
        metavar="ID",
        nargs="+",
        help="a key id: all of its certificates; a serial number; or SHA256:..., the key that was certified",
    )
    revoke.add_argument("--krl", metavar="FILE", type=Path, help=f"default: revoked.krl in {_STATE}")
    revoke.add_argument("--ca", metavar="SHA256:...", help="certificates by this CA key only")
    parser.words = actions.choices


def run(chosen: argparse.Namespace) -> int:
    """Run the action; returns the exit status."""
    from replug.agent.ca.ssh_keygen import KeygenError

    actions = {"trust": _trust, "issue": _issue, "issued": _issued, "revoke": _revoke}
    try:
        actions[chosen.action](chosen)
    except (_RefusedError, KeygenError) as error:
        print(f"replug: {error}", file=sys.stderr)
        return 1
    return 0


def _trust(chosen: argparse.Namespace) -> None:
    kind = "host" if chosen.host else "user"
    known = [one for one in _of_agent()[0] if kind in one.types]
    if not known:
        raise _RefusedError(f"no [[ca]] of config.toml is for {kind} certificates; see replug.toml(5)")
    for one in known:
        if one.blob:
            print(f"@cert-authority * {one.line}" if chosen.host else one.line)
    unknown = [one.fingerprint for one in known if not one.blob]
    if unknown:
        raise _RefusedError(f"{' and '.join(unknown)}: on no token that the agent has seen; plug it in")


def _renew_files() -> None:
    """Have the agent write each `certificate_file` again."""
    from replug.agent.control.client import ask
    from replug.token.identity import printable

    answer = ask("issue", _PATIENCE)
    if answer["refused"]:
        raise _RefusedError(answer["refused"])
    if not answer["files"]:
        raise _RefusedError("which key? KEY.pub; no [[certificate]] of config.toml has a certificate_file")
    for one in answer["files"]:
        if not one["failed"]:
            print(printable(f"{one['path']}: {one['key_id']}, serial {one['serial']}"))
    failed = [one for one in answer["files"] if one["failed"]]
    if failed:
        why = (f"{one['path']}: {one['failed']}; {one['next_step']}".rstrip("; ") for one in failed)
        raise _RefusedError(printable("; ".join(why)))


def _issue(chosen: argparse.Namespace) -> None:
    import socket

    from replug.agent.ca.serial import serial_at
    from replug.agent.ca.ssh_keygen import KeygenError, Wish, sign
    from replug.agent.control.refusal_of import why_refused
    from replug.token.identity import printable

    if chosen.key is None:
        if any((chosen.names, chosen.validity, chosen.key_id, chosen.options, chosen.host, chosen.ca)):
            raise _RefusedError("which key? The options are for a KEY.pub")
        _renew_files()
        return
    user = _own_name()
    authorities, agent_socket = _of_agent()
    authority = _chosen_authority(chosen, authorities, user)
    names = chosen.names or _only_name(authority, user)
    wish = Wish(
        key=chosen.key,
        key_id=chosen.key_id or f"{user}@{socket.gethostname()}",
        principals=names,
        validity=chosen.validity or f"-1m:+{authority.max_validity}s",
        serial=serial_at(time.time()) if chosen.serial is None else chosen.serial,
        host=chosen.host,
        options=tuple(chosen.options),
    )
    try:
        path = sign(authority, wish, agent_socket)
    except KeygenError as error:
        raise _RefusedError(why_refused(error.pid) or printable(str(error))) from error
    print(printable(f"{path}: {wish.key_id}, for {names}, serial {wish.serial}, by {authority.place}"))


def _chosen_authority(chosen: argparse.Namespace, authorities: Sequence[Authority], user: str) -> Authority:
    """The one that is named, or the first that may sign this and whose token is in."""
    kind = "host" if chosen.host else "user"
    fitting = [one for one in authorities if chosen.ca in (None, one.fingerprint)]
    if not fitting:
        raise _RefusedError(f"no [[ca]] of config.toml is for {chosen.ca or 'any key'}; see replug.toml(5)")
    names = chosen.names.split(",") if chosen.names else []
    allowed = [one for one in fitting if kind in one.types and one.allows(names, user)] or fitting
    here = next((one for one in allowed if one.present), None)
    if here is not None:
        return here
    places = " or ".join(dict.fromkeys(one.place or f"the token of {one.fingerprint}" for one in allowed))
    raise _RefusedError(f"{places} is in no slot; plug it in")


def _only_name(authority: Authority, user: str) -> str:
    from replug.agent.config.ca_entry import ANY_NAME

    allowed = authority.names_for(user)
    if len(allowed) != 1 or ANY_NAME in allowed:
        choice = "any name" if ANY_NAME in allowed else " or ".join(allowed)
        raise _RefusedError(f"for whom is the certificate? -n {choice}")
    return allowed[0]


def _issued(chosen: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    lines = [one for one in _journal() if chosen.user in (None, one.user)]
    for one in lines:
        print(json.dumps(asdict(one)) if chosen.json else _in_words(one))
    if not lines and not chosen.json:
        by = f" that {chosen.user} asked for" if chosen.user is not None else ""
        print(f"No certificate{by} is on record.")


def _in_words(one: Issued) -> str:
    from replug.agent.control.ages import minute
    from replug.token.identity import printable

    kind = "host " if one.type == "host" else ""
    to = f" to {one.destination}" if one.destination else ""
    return printable(
        f"{minute(one.time)} {kind}{one.key_id} {','.join(one.principals)}"
        f" serial {one.serial} until {minute(one.valid_before, one.time)} by {one.program}{to}"
    )


def _revoke(chosen: argparse.Namespace) -> None:
    from replug.agent.ca.authority import of_journal
    from replug.agent.ca.journal import journal_path
    from replug.agent.ca.ssh_keygen import revoke
    from replug.agent.control.client import AskError
    from replug.agent.control.places import is_system_service
    from replug.token.identity import printable
    from replug.token.trusted_file import make_folder

    lines = _journal()
    try:
        configured = _of_agent()[0]
    except AskError:
        configured = []  # what is on record is enough
    known = {one.fingerprint: one for one in (*of_journal(lines), *configured) if one.blob}
    if chosen.ca is not None:
        known = {key: one for key, one in known.items() if key == chosen.ca}
    if not known:
        raise _RefusedError(
            f"{chosen.ca or 'a CA key'} is unknown here: plug its token in; see replug ca trust"
        )
    krl = chosen.krl
    if krl is None:
        # Root's own folder: what the service may write to is no place for root to write in.
        krl = _KRL_OF_SERVICE if is_system_service(os.environ.get("SSH_AUTH_SOCK", "")) else None
        krl = krl or journal_path().with_name("revoked.krl")
        make_folder(krl.parent)
    for name in chosen.certificates:
        specification, its = _specification(name, lines)
        signers = {one.ca for one in its}
        by = [one for key, one in known.items() if not signers or key in signers]
        if not by:
            raise _RefusedError(f"{name} on record is by another CA key: {' and '.join(sorted(signers))}")
        if specification.startswith("serial:") and len(by) != 1:
            raise _RefusedError(f"serial {name} is one of several CA keys: say which with --ca")
        if not its:
            print(printable(f"replug: no certificate {name} is on record here"), file=sys.stderr)
        revoke(by, specification, krl)
        count = f" ({len(its)} on record)" if its else ""
        print(printable(f"{krl}: {' and '.join(specification.splitlines())}{count} is revoked"))
    print("Copy the file to the servers, where RevokedKeys of sshd_config(5) names it.")


def _specification(name: str, lines: Sequence[Issued]) -> tuple[str, list[Issued]]:
    """What ssh-keygen(1) reads (KEY REVOCATION LISTS), and the certificates on record that it means."""
    from replug.agent.config.key_choice import is_fingerprint

    named = [one for one in lines if one.key_id == name]
    if is_fingerprint(name):
        its = [one for one in lines if one in named or one.key == name]
        return f"hash:{name}\n" + (f"id:{name}\n" if named else ""), its
    is_number = name.isascii() and name.isdecimal() and len(name) <= _DIGITS
    numbered = [one for one in lines if is_number and one.serial == int(name)]
    if named and numbered:
        # Who asks for certificates chooses key ids: none keeps another from being revoked by its number.
        return f"id:{name}\nserial:{int(name)}\n", list(dict.fromkeys([*named, *numbered]))
    if named or not is_number:
        # It ends at a line's end and at a comment, and blanks around it are not part of it.
        if not name.isprintable() or name != name.strip() or " #" in name or not name or name[0] == "#":
            raise _RefusedError(f"{name!r} cannot be written in a revocation list: {_OTHERWISE}")
        return f"id:{name}\n", named
    number = int(name)
    if not 0 < number < 2**64:
        raise _RefusedError(f"{name} is no serial number that can be revoked: {_OTHERWISE}")
    return f"serial:{number}\n", numbered


def _journal() -> list[Issued]:
    from replug.agent.ca.journal import journal_path, read_journal

    try:
        return list(read_journal(journal_path()))
    except OSError as error:
        raise _RefusedError(f"{error.filename}: {error.strerror}") from error


def _of_agent() -> tuple[list[Authority], str]:
    """The CA keys that the agent knows, and its socket; AskError."""
    from replug.agent.ca.authority import of_agent
    from replug.agent.control.client import ask

    answer = ask("ca", _PATIENCE)
    if answer["locked"]:
        raise _RefusedError("the agent is locked: unlock it with ssh-add -X")
    return of_agent(answer), answer["socket"]


def _own_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _serial(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError("must be from 0 to 2^64 - 1")
    return number
