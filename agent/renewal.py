"""New certificates for ssh's files (`certificate_file`), as `replug ca issue` asks when it names no key."""

from __future__ import annotations

from typing import Any

from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.keyring import Keyring
from replug.protocol.wire import ProtocolError
from replug.token.errors import ExplainedError
from replug.token.requester import requester


async def renew_files(keyring: Keyring, asker: Peer) -> dict[str, Any]:
    """The files with their certificates, or why there is none; the user is asked where `asker` runs."""
    if keyring.locked:
        return {"version": 1, "refused": "the agent is locked: unlock it with ssh-add -X", "files": []}
    requester.set(asker.requester)
    await keyring.first_scan.wait()
    await keyring.wait_for_expected()
    states = [state for state in keyring.issuing.states() if state.rule.certificate_file]
    files = []
    for state in states:
        entry = {
            "path": state.rule.certificate_file,
            "key_id": "",
            "serial": 0,
            "failed": "",
            "next_step": "",
        }
        try:
            certificate = (await keyring.issuing.renew(state, Client(asker))).certificate
            entry |= {"key_id": certificate.key_id.decode(), "serial": certificate.serial}
        except ExplainedError as error:
            entry |= {"failed": error.reason, "next_step": error.next_step}
        except ProtocolError as error:
            entry |= {"failed": str(error)}
        files.append(entry)
    return {"version": 1, "refused": "", "files": files}
