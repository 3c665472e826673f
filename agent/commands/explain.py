"""`replug explain`: why the agent refused, which the protocol has no words for."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from replug.agent.commands.ages import clock, how_long_ago
from replug.agent.commands.command import Commands
from replug.agent.commands.terminal_style import Style
from replug.agent.control.client import ask
from replug.token.identity import printable

_ASKED = {
    "AddIdentity": "to add a key",
    "AddSmartcardKey": "to add the keys of a token (ssh-add -s)",
    "Extension": "for an extension of the protocol",
    "Lock": "to lock the agent (ssh-add -x)",
    "RemoveAllIdentities": "to remove all keys (ssh-add -D)",
    "RemoveAllRsa1Identities": "to remove all keys of SSH 1 (ssh-add -D)",
    "RemoveIdentity": "to remove a key (ssh-add -d)",
    "RemoveSmartcardKey": "to remove the keys of a token (ssh-add -e)",
    "RequestIdentities": "which keys there are (ssh-add -l)",
    "SignRequest": "for a signature, which is how one logs in with a key",
    "Unlock": "to unlock the agent (ssh-add -X)",
}
"""By the name of the request (replug.protocol.messages)."""
_ADVICE = (
    (
        "is not in the agent",
        "See which keys there are with ssh-add -l; add a token's with ssh-add -s MODULE.",
    ),
    ("was not added", "See what was added with replug status --json, under providers."),
    ("PIN prompt was cancelled", "Try again and enter the PIN."),
    ("no PIN was entered within", "Try again; prompt_timeout in config.toml gives you longer."),
    ("does not do that yet", "Use OpenSSH's ssh-agent for that."),
    ("wrong PIN", "Try again with the right PIN: a few wrong ones lock the token."),
)
"""What to do, for reasons that come without a next step."""
_OTHERWISE = (
    "Try again; if it is refused again, replug doctor looks for the cause and replug logs has the details."
)


def add_parser(commands: Commands) -> None:
    """Declare `explain`."""
    parser = commands.add_parser("explain", help="the last refusals in plain words: what, who, why, what now")
    parser.add_argument(
        "-n", "--lines", metavar="N", type=_positive, default=5, help="how many, at most (default 5)"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Ask the agent and print a paragraph for each refusal, the latest last."""
    paragraphs = list(explain(ask("status")["refusals"], time.time()))[-chosen.lines :]
    style = Style.of_output()
    if not paragraphs:
        print("Nothing was refused since the agent was started.")
    print(
        "\n\n".join("\n".join(style.wrap(paragraph)) for paragraph in paragraphs),
        end="\n" if paragraphs else "",
    )
    return 0


def explain(refusals: list[dict[str, Any]], now: float) -> Iterator[str]:
    """A paragraph each, oldest first; what was refused again for the same reason is told once."""
    for same in _repeated(refusals):
        last = same[-1]
        request = _ASKED.get(last["request"], f"something ({last['request']})")
        program = last["program"] or "A program"
        times = f" {len(same)} times, last" if len(same) > 1 else ""
        if last.get("purpose"):
            request = f"for a signature: {last['purpose']}"
        when = f"{how_long_ago(last['time'], now)} ({clock(last['time'], now)})"
        yield printable(
            f"{program} asked{times} {when} {request}."
            f" The agent refused: {_sentence(last['reason'])}"
            f" What to do now: {_next_step(last)}"
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


def _next_step(refusal: dict[str, Any]) -> str:
    if refusal["next_step"]:
        return _sentence(refusal["next_step"])
    return next((advice for part, advice in _ADVICE if part in refusal["reason"]), _OTHERWISE)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
