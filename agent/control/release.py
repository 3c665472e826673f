"""Whether the agent that runs is the one that is installed, and how to change over to that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from replug.agent.control.places import AGENT_SOCKET, SYSTEM_SOCKET, runtime_folder
from replug.token.identity import printable


def older_agent(status: Mapping[str, Any], installed: str) -> str:
    """What is to be known of a running agent that is not the installed release; empty if it is that."""
    running = status.get("release", "an older release")  # 0.1.0 did not say
    if running in ("", installed):
        return ""
    return printable(f"{running} is running, {installed} is installed")


def change_over(agent_socket: str, of_systemd: str = "") -> str:
    """The command that replaces the agent at `agent_socket` by the installed one.

    `of_systemd` is the socket that systemd listens at, if it is not the usual one.
    """
    if agent_socket == SYSTEM_SOCKET:
        return "sudo systemctl restart replug-ca.service"
    if agent_socket == (of_systemd or f"{runtime_folder(os.environ)}/{AGENT_SOCKET}"):
        return "systemctl --user restart replug-agent.socket replug-agent.service"
    return "end the agent (eval $(replug-agent -k)) and start it as before"


def what_is_lost(status: Mapping[str, Any]) -> str:
    """What does not survive the end of the agent, in a sentence."""
    security_keys = status.get("security_keys", ())
    holders = (*status.get("tokens", ()), *security_keys)
    pins = sum(bool(holder.get("pin_remembered")) for holder in holders)
    keys = len(status.get("software_keys", ())) + len(security_keys)
    lost = [
        f"{count} {what}{'' if count == 1 else 's'}{where}"
        for count, what, where in ((pins, "remembered PIN", ""), (keys, "key", " in memory"))
        if count
    ]
    subject = f"It has {' and '.join(lost)}, which do" if lost else "PINs and keys in memory do"
    return (
        f"{subject} not survive the change: PINs are asked for again, what was added with ssh-add has to be"
        " added again, and tokens that it finds by itself are back at once."
    )
