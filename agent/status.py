"""What `replug status` shows, as JSON on the control socket (see replug(1))."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from replug.agent.ca.rule_state import RuleState
from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.control.refusals import Refusal, RefusalHistory
from replug.agent.key_rules.described import hosts_as_json, rule_as_json
from replug.agent.keyring import Keyring
from replug.agent.keys.identity import Identity, confirm_when
from replug.agent.views.sockets import ViewSocket
from replug.protocol.keys import fingerprint
from replug.token.hardening import readable_through_user_namespace
from replug.token.identity import TokenFlag
from replug.token.keygen.key_advice import how_to_get_a_key, what_then, without_keys
from replug.token.keys import LeftOut
from replug.token.modules.module import Module
from replug.token.pieces import Pieces
from replug.token.serving.presence import TokenState
from replug.token.serving.served import ServedToken

STATUS_VERSION = 1
"""Increased when a program written for the older format would misread the new one."""
_TRIES = (
    (TokenFlag.USER_PIN_LOCKED, "locked"),
    (TokenFlag.USER_PIN_FINAL_TRY, "final"),
    (TokenFlag.USER_PIN_COUNT_LOW, "low"),
)


async def status(
    keyring: Keyring, sockets: Sequence[ViewSocket], history: RefusalHistory, agent_socket: str, release: str
) -> dict[str, Any]:
    """The agent's state now. Like ssh-add, `replug status` gets no keys from a locked agent.

    To describe thousands of keys takes a tenth of a second, in which clients are served.
    """
    keyring.drop_expired()
    no_guests = keyring.why_no_guests() if keyring.settings.config.guest_rules else None
    locked, pieces = keyring.locked, Pieces()
    served = [(module, token) for module in keyring.modules() for token in module.tokens.values()]
    tokens = [await _token(keyring, module, token, pieces) for module, token in served]
    software = [] if locked else await _keys(keyring, keyring.identities.software_keys(), pieces)
    security = [] if locked else await _security_keys(keyring, pieces)
    upstreams = await keyring.upstreams.states()
    if keyring.locked and not locked:
        return await status(keyring, sockets, history, agent_socket, release)
    return {
        "version": STATUS_VERSION,
        "release": release,
        # The supervisor's, by which SSH_AGENT_PID and systemd know the agent too.
        "pid": os.getppid(),
        "socket": agent_socket,
        "locked": locked,
        "memory_readable": readable_through_user_namespace(),
        "configuration_refused": keyring.settings.refused,
        "configuration_refused_since": keyring.settings.refused_since,
        "configuration_read": keyring.settings.read_at,
        "no_guests": "" if no_guests is None else no_guests.reason,
        "no_guests_next_step": "" if no_guests is None else no_guests.next_step,
        "forget_pin_on": sorted(keyring.settings.config.forget_pin_on),
        "allowed_modules": keyring.settings.options.provider_patterns,
        "providers": [
            {"name": provider.name, "module": provider.module.path}
            for provider in keyring.identities.providers()
        ],
        "tokens": tokens,
        "software_keys": software,
        "security_keys": security,
        "upstreams": upstreams,
        "sockets": [_socket(one) for one in sockets],
        "certificates": [] if locked else await _certificates(keyring, pieces),
        "key_rules": [rule_as_json(rule) for rule in keyring.settings.config.key_rules],
        "hosts": [] if locked else hosts_as_json(keyring.destinations),
        "refusals": [_refusal(refusal) for refusal in history],
    }


def forget(keyring: Keyring) -> dict[str, Any]:
    """Forget every PIN (`replug forget`); returns how many there were."""
    return {"version": STATUS_VERSION, "forgotten": keyring.forget_pins()}


async def authorities(keyring: Keyring, agent_socket: str) -> dict[str, Any]:
    """The keys that a `[[ca]]` names, in its order, for `replug ca`; a locked agent shows none of them.

    As for a listing, tokens that are just being read are waited for.
    """
    await keyring.first_scan.wait()
    await keyring.wait_for_expected()
    held: list[Identity] = []
    if not keyring.locked:
        held += keyring.identities.software_keys()
        held += keyring.identities.security_keys()
        held += (one for token in keyring.tokens() for one in keyring.identities.on(token))
    return {
        "version": STATUS_VERSION,
        "socket": agent_socket,
        "locked": keyring.locked,
        "authorities": [_authority(entry, held) for entry in keyring.settings.config.cas],
    }


def _authority(entry: CaEntry, held: list[Identity]) -> dict[str, Any]:
    keys = [one for one in held if one.fingerprint == entry.key and not one.is_certificate]
    nearest = min(keys, key=lambda one: one.distance, default=None)
    return {
        "fingerprint": entry.key,
        "key": "" if nearest is None else base64.b64encode(nearest.blob).decode(),
        "place": "" if nearest is None else nearest.place,
        "present": nearest is not None and not nearest.distance[0],
        "types": list(entry.types),
        "principals": list(entry.principals),
        "max_validity": entry.max_validity,
    }


async def _token(keyring: Keyring, module: Module, token: ServedToken, pieces: Pieces) -> dict[str, Any]:
    await pieces.next()
    held = [] if keyring.locked else keyring.identities.on(token)
    lifetime = keyring.identities.lifetime_left(token)
    pin_left = keyring.pin_expires_in(token) if token.pin_remembered else None
    return {
        "label": token.identity.label,
        "manufacturer": token.identity.manufacturer,
        "model": token.identity.model,
        "serial": token.identity.serial,
        "copy": token.identity.copy,
        "has_twin": token.pin_owner.has_twin,
        "module": token.pin_owner.module,
        "state": token.state,
        "why": token.reason,
        "pin_remembered": token.pin_remembered,
        "pin_configured": token.pin_configured,
        "pin_expires_in": None if pin_left is None else round(pin_left),
        "pin_tries": _pin_tries(token),
        "expires_in": None if lifetime is None else round(lifetime),
        "last_inserted": token.last_inserted,
        "last_removed": token.last_removed,
        "keys": await _keys(keyring, held, pieces),
        "left_out": [] if keyring.locked else [_left_out(key) for key in token.left_out],
        **_without_keys(module, token),
    }


def _without_keys(module: Module, token: ServedToken) -> dict[str, str]:
    """That the token shows no keys, and how it gets one; empty for one that does, or is out."""
    # A slot that wants no login and shows nothing is not for keys of the user, like NSS's second one.
    if token.keys or not token.was_read or not token.present or not token.wants_login:
        return {"without_keys": "", "first_key": "", "first_key_then": ""}
    logged_in = token.state is TokenState.READY
    return {
        "without_keys": without_keys(token.identity, module.path, logged_in=logged_in),
        "first_key": how_to_get_a_key(token.identity, module.path),
        "first_key_then": what_then(token.identity, module.path),
    }


def _left_out(key: LeftOut) -> dict[str, str]:
    return {"label": key.label, "why": key.reason}


def _pin_tries(token: ServedToken) -> str:
    """Whether PIN tries are missing, by the token's flags when they were last read."""
    for flag, word in _TRIES:
        if flag in token.flags:
            return word
    return "full"


async def _security_keys(keyring: Keyring, pieces: Pieces) -> list[dict[str, Any]]:
    """The keys of FIDO authenticators: as other keys, with the library, the application and the PIN."""
    described = []
    for one in keyring.identities.security_keys():
        await pieces.next()
        key = keyring.security_keys.of(one.blob)
        remembered = key is not None and key.pin_remembered
        left = keyring.pin_expires_in(key) if key is not None and remembered else None
        described.append(
            {
                **_key(keyring, one),
                "provider": one.provider,
                "application": one.public.application,
                "pin_remembered": remembered,
                "pin_expires_in": None if left is None else round(left),
            }
        )
    return described


async def _keys(keyring: Keyring, held: Iterable[Identity], pieces: Pieces) -> list[dict[str, Any]]:
    described = []
    for one in held:
        await pieces.next()
        described.append(_key(keyring, one))
    return described


def _key(keyring: Keyring, held: Identity) -> dict[str, Any]:
    when = confirm_when(held, keyring.settings.config) | keyring.certifying.confirm_when(held.blob)
    always = ConfirmWhen.ALWAYS in when
    return {
        "fingerprint": held.fingerprint,
        "type": held.algorithm,
        "comment": held.comment.decode(errors="replace"),
        "certificate": held.is_certificate,
        "confirm": always,
        "confirm_when": [] if always else when.words,
        "restricted": bool(held.constraints.destinations),
        "ca": keyring.certifying.names(held),
    }


async def _certificates(keyring: Keyring, pieces: Pieces) -> list[dict[str, Any]]:
    described = []
    for state in (*keyring.issuing.states(), *keyring.issuing.states_of_guests()):
        await pieces.next()
        described.append(_certificate(state))
    return described


def _certificate(state: RuleState) -> dict[str, Any]:
    """What there is of one `[[certificate]]`, for one user."""
    shown, missing = state.shown(time.time()), state.missing
    current = None if shown is None else shown.issued
    certificate = None if current is None else current.certificate
    return {
        "ca": list(state.rule.ca),
        "hosts": list(state.rule.hosts),
        "principals": list(state.rule.principals),
        "users": list(state.rule.users),
        "user": state.guest.name if state.guest is not None else "",
        "serial": certificate.serial if certificate else None,
        "key_id": certificate.key_id.decode() if certificate else "",
        "fingerprint": current.fingerprint if current else "",
        "certified_by": fingerprint(certificate.ca_key) if certificate else "",
        "certified_on": current.authority if current else "",
        "valid_before": certificate.valid_before if certificate else None,
        "certified_principals": [name.decode() for name in certificate.principals] if certificate else [],
        "failed": missing.reason if missing else "",
        "next_step": missing.next_step if missing else "",
        "failed_at": missing.when if missing else None,
    }


def _socket(socket: ViewSocket) -> dict[str, Any]:
    """What became of one `[[socket]]`."""
    entry, failed = socket.view.entry, socket.failed
    return {
        "path": entry.path,
        "keys": list(entry.keys),
        "hosts": list(entry.hosts),
        "confirm": ConfirmWhen.ALWAYS in entry.confirm,
        "confirm_when": [] if ConfirmWhen.ALWAYS in entry.confirm else entry.confirm.words,
        "listens": socket.entrance is not None,
        "failed": failed.reason if failed else "",
        "next_step": failed.next_step if failed else "",
    }


def _refusal(refusal: Refusal) -> dict[str, Any]:
    return {
        "time": refusal.when,
        "request": refusal.request,
        "program": refusal.program,
        "purpose": refusal.purpose,
        "reason": refusal.reason,
        "next_step": refusal.next_step,
    }
