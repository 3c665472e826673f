"""`replug history`: which key was used for what, from the log of an agent that real programs have used."""

from __future__ import annotations

import json

from rigs.agent import Agent
from rigs.doctor import REPLUG
from rigs.home import Home
from rigs.softhsm import Token
from rigs.sshd import USER, Server, only


def test_a_login_and_a_signature_of_a_file(
    working_agent: Agent, token: Token, server: Server, home: Home
) -> None:
    key, other = token.public("p256"), token.public("ed25519")
    server.authorize(key)
    assert server.login(working_agent, *only(key)).status == 0, working_agent.log
    data = home.write("data", "signed by hand")
    assert working_agent.run("ssh-keygen", "-Y", "sign", "-q", "-n", "file", "-f", other, data).status == 0
    log = home.write("agent.log", working_agent.log)
    fingerprints = [home.run("ssh-keygen", "-lf", path).out.split()[1] for path in (key, other)]
    host = home.run("ssh-keygen", "-lf", server.host_key).out.split()[1]

    def history(*options: str) -> list[str]:
        done = home.run(REPLUG, "history", "--file", log, *options)
        assert (done.status, done.err) == (0, ""), done
        return done.out.splitlines()

    login, signature = history()
    assert "ssh (pid " in login
    assert f"login at the host with key {host}" in login
    assert f", as {USER}; key p256 {fingerprints[0]} of token " in login
    assert "SSHSIG signature, not a login, namespace file; key " in signature
    assert fingerprints[1] in signature
    assert history("-n", "1") == [signature]
    assert history("--key", fingerprints[0]) == history("--key", "p2*") == history("--host", host) == [login]
    assert history("--key", fingerprints[1]) == [signature]
    assert history("--host", "elsewhere") == ["No signature of that kind is in the log."]
    [one] = map(json.loads, history("--json", "--host", host))
    assert (one["key"], one["host"], one["comment"]) == (fingerprints[0], [host], "p256")


def test_it_says_where_the_log_may_be(home: Home) -> None:
    done = home.run(REPLUG, "history", "--file", home.folder / "nowhere")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"replug: {home.folder}/nowhere: No such file or directory\n"
