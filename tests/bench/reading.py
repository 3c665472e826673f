"""What a token with many keys costs: adding it, and the first signature after the worker is lost.

Beside OpenSSH's agent and `pkcs11-tool --sign`, in turns, on SoftHSM.
`python tests/bench/reading.py [KEYS ...]`
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent))

from rigs.agent import OPENSSH, Agent
from rigs.c_modules import build
from rigs.home import Home
from rigs.odd import OddModule
from rigs.softhsm import MODULE, PIN, Token

REPLUG = Path(sys.executable).with_name("replug-agent")
ROUNDS = 7
PAUSE = 1.5
"""Seconds before each, as users leave them: what is forked in advance is there again."""
GENERATE = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType, util
from pkcs11.util.ec import encode_named_curve_parameters
token = next(iter(pkcs11.lib(sys.argv[1]).get_tokens(token_label="work")))
with token.open(rw=True, user_pin=sys.argv[2]) as session:
    curve = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    for number in range(int(sys.argv[3])):
        curve.generate_keypair(store=True, label=f"key-{number}", id=number.to_bytes(2, "big"))
"""


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    time.sleep(PAUSE)
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def add_and_remove(agent: Agent, module: Path) -> float:
    """One `ssh-add -s`, after which the provider is removed again."""
    taken = seconds(lambda: check(agent.add_provider(module, PIN).status == 0, agent.log))
    check(agent.ssh_add("-e", module).status == 0, agent.log)
    return taken


def check(holds: bool, otherwise: str) -> None:
    """Ends the program if something else failed than what is measured."""
    if not holds:
        sys.exit(otherwise)


def first_signature(agent: Agent, key: Path) -> float:
    """One signature after the module's workers were killed."""
    for pid in agent.children():
        if str(MODULE.resolve()) in Path(f"/proc/{pid}/maps").read_text():
            os.kill(pid, signal.SIGKILL)
    return seconds(lambda: check(agent.ssh_add("-T", key).status == 0, agent.log))


def tool_signature(home: Home, key_id: str) -> float:
    """One signature by a fresh pkcs11-tool."""
    data = home.write("digest", bytes(32))
    return seconds(
        lambda: check(
            home.run(
                "pkcs11-tool", "--module", MODULE, "--login", "--pin", PIN, "--sign", "--id", key_id,
                "--mechanism", "ECDSA", "--input-file", data, "--output-file", home.folder / "signature",
            ).status == 0,
            "pkcs11-tool",
        )
    )  # fmt: skip


def compare(name: str, ours: list[float], theirs: list[float]) -> None:
    """Prints one row."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(f"{name:44} {mine * 1000:8.0f} ms {other * 1000:8.0f} ms {mine / other:6.2f}x", flush=True)


def main(counts: list[int]) -> None:
    """Prints the figures for tokens with so many keys."""
    with TemporaryDirectory() as folder:
        built = build("odd", Path(folder))
        for count in counts:
            home = Home()
            Token(home)
            command = [sys.executable, "-c", GENERATE, str(MODULE), PIN, str(count)]
            subprocess.run(command, env=home.env, check=True)
            ours, theirs = Agent(REPLUG, home, "-P", "/*"), Agent(OPENSSH, home, "-P", "/*")
            times: dict[str, list[float]] = {name: [] for name in ("ours", "theirs", "first", "tool")}
            for _ in range(ROUNDS):
                times["ours"].append(add_and_remove(ours, MODULE))
                times["theirs"].append(add_and_remove(theirs, MODULE))
            compare(f"ssh-add -s, {count} keys (ssh-agent)", times["ours"], times["theirs"])
            check(ours.add_provider(MODULE, PIN).status == 0, ours.log)
            number = count // 2
            listed = ours.ssh_add("-L").out.splitlines()
            [line] = [line for line in listed if line.endswith(f" key-{number}")]
            key = home.write("key.pub", line + "\n")
            for _ in range(ROUNDS):
                times["first"].append(first_signature(ours, key))
                times["tool"].append(tool_signature(home, f"{number:04x}"))
            compare(f"first signature, {count} keys (pkcs11-tool)", times["first"], times["tool"])
            for name, agent in (("replug", REPLUG), ("ssh-agent", OPENSSH)):
                odd = OddModule(built, home)
                odd.forget_calls()
                counting = Agent(agent, home, "-P", "/*", env=odd.env)
                check(counting.add_provider(odd.path, PIN).status == 0, counting.log)
                calls = odd.calls
                print(f"  {name}: C_GetAttributeValue a key {calls['C_GetAttributeValue'] / count:.1f}, "
                      f"all calls {sum(calls.values())}, processes {len(odd.processes)}")  # fmt: skip
                counting.stop()
            ours.stop()
            theirs.stop()
            home.remove()


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1, 100, 400])
