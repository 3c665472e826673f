"""What a client at a socket for some of the keys may sign, and when the user is asked."""

from __future__ import annotations

from replug.agent.clients.client import Client
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.keys.identity import Identity
from replug.agent.keys.refusal import RequestRefusedError, unknown_key
from replug.protocol.keys import fingerprint
from replug.protocol.purpose import Login, Purpose


def may_use(client: Client, held: Identity) -> bool:
    """Whether an identity exists for this client, whatever its destinations."""
    if client.view is not None and not client.view.shows(held.blob, held.comment):
        return False
    return client.may_use(held.constraints)


def check_purpose(client: Client, purpose: Purpose) -> None:
    """Raise RequestRefusedError if the client's socket is not for this."""
    view = client.view
    if view is None or not view.entry.hosts:
        return
    if not (isinstance(purpose.signed, Login) and view.is_open_for(client.only_host)):
        raise RequestRefusedError(
            "over this socket only logins at its hosts are signed",
            "hosts of its [[socket]] in config.toml names them, and the connection has to be bound to one, "
            "as ssh does by itself",
        )


def confirm_when(client: Client) -> ConfirmWhen:
    """When the user is asked before any key signs for this client."""
    return ConfirmWhen.NEVER if client.view is None else client.view.entry.confirm


def not_there(client: Client, key_blob: bytes) -> RequestRefusedError:
    """The refusal of a key that is not there for this client."""
    if client.view is None:
        return unknown_key(key_blob)
    return RequestRefusedError(
        f"key {fingerprint(key_blob)} cannot be used over this socket",
        "keys of its [[socket]] in config.toml names those that can, see replug.toml(5)",
    )


def only_uses_keys(client: Client) -> RequestRefusedError:
    """The refusal of all but listing and signing, for a client that may do nothing else."""
    if client.view is None:
        return RequestRefusedError(
            "the agent is a service for this user, who may list certificates and sign with them only",
            "use an agent of your own for other keys",
        )
    return RequestRefusedError(
        "over this socket keys are listed and sign, and nothing else is done",
        "use the agent's own socket (SSH_AUTH_SOCK) for that",
    )
