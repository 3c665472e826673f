"""`replug explain`: what the protocol cannot carry: the reasons of refusals, and of lists of keys."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from replug.agent.commands.command import Commands
from replug.agent.commands.terminal_style import Style
from replug.agent.control.ages import clock, how_long_ago
from replug.agent.control.client import ask
from replug.token.identity import printable

_ASKED = {
    "AddIdentity": "to add a key",
    "Certificate": "for a login at a host of a [[certificate]]",
    "AddSmartcardKey": "to add the keys of a token (ssh-add -s)",
    "Connection": "with what is no message, so the connection was closed",
    "Extension": "for an extension of the protocol",
    "Lock": "to lock the agent (ssh-add -x)",
    "RemoveAllIdentities": "to remove all keys (ssh-add -D)",
    "RemoveAllRsa1Identities": "to remove all keys of SSH 1 (ssh-add -D)",
    "RemoveIdentity": "to remove a key (ssh-add -d)",
    "RemoveSmartcardKey": "to remove the keys of a token (ssh-add -e)",
    "RequestIdentities": "which keys there are (ssh-add -l)",
    "SignRequest": "for a signature, for example to log in",
    "Unlock": "to unlock the agent (ssh-add -X)",
}
"""By the name of the request (replug.protocol.messages)."""
_OTHERWISE = "try again; if it is refused again, run replug doctor, and see replug logs for the details"
"""For refusals that carry no next step."""


def add_parser(commands: Commands) -> None:
    """Add `explain` to the commands of `replug`."""
    parser = commands.add_parser(
        "explain", help="explain the last refusals, or which keys a host gets to see"
    )
    parser.add_argument(
        "host", nargs="?", help="explain which keys ssh is listed for a login at this host, in which order"
    )
    parser.add_argument(
        "--repository", metavar="REPOSITORY", help="with a host: as git is listed them for this repository"
    )
    parser.add_argument(
        "-n", "--lines", metavar="N", type=_positive, default=5, help="show at most N refusals (default 5)"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Print a paragraph for each refusal, the latest last; or what is listed to the host."""
    if chosen.host is not None:
        from replug.agent.commands.explain_host import explain_host  # not needed for refusals

        print("\n".join(explain_host(chosen.host, chosen.repository or "", Style.of_output())))
        return 0
    all_of_them = list(explain(ask("status")["refusals"], time.time()))
    paragraphs = all_of_them[-chosen.lines :]
    style = Style.of_output()
    if len(all_of_them) > len(paragraphs):
        more = len(all_of_them) - len(paragraphs)
        earlier = f"{more} earlier {'refusal is' if more == 1 else 'refusals are'} not shown"
        paragraphs.insert(0, f"{earlier}; to see all of them: replug explain -n {len(all_of_them)}")
    if not paragraphs:
        print("Nothing has been refused since the agent was started.")
    print(
        "\n\n".join("\n".join(style.wrap(paragraph)) for paragraph in paragraphs),
        end="\n" if paragraphs else "",
    )
    return 0


def explain(refusals: list[dict[str, Any]], now: float) -> Iterator[str]:
    """One paragraph for each refusal, oldest first; identical ones in a row are one paragraph."""
    for same in _repeated(refusals):
        last = same[-1]
        request = _ASKED.get(last["request"], f"something ({last['request']})")
        program = last["program"] or "A program"
        times = f" {len(same)} times, last" if len(same) > 1 else ""
        if last.get("purpose"):
            request = f"for a signature: {last['purpose']}"
        when = f"{how_long_ago(last['time'], now)} ({clock(last['time'], now)})"
        yield printable(
            f"{program} asked{times} {when} {request}. The agent refused: {_sentence(last['reason'])}"
            f" What to do now: {_sentence(last['next_step'] or _OTHERWISE)}"
        )


def _repeated(refusals: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Runs of refusals of the same request for the same reason."""
    run: list[dict[str, Any]] = []
    for refusal in refusals:
        if run and any(
            run[0].get(key) != refusal.get(key) for key in ("request", "reason", "next_step", "purpose")
        ):
            yield run
            run = []
        run.append(refusal)
    if run:
        yield run


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
