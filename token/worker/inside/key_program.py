"""The worker process of `replug keygen`: a worker that can also make key pairs. The agent has none of it.

Nothing on a token is overwritten, changed or deleted: a key pair is made under a CKA_ID that no object has.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, NoReturn

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error, TokenFlag
from pkcs11.constants import DEFAULT

from replug.token.errors import Verdict
from replug.token.worker import key_types
from replug.token.worker.frames import Header
from replug.token.worker.inside.calls import calling
from replug.token.worker.inside.cryptoki import encode_number
from replug.token.worker.inside.loop import RefusedError
from replug.token.worker.inside.objects import SIGNATURE_MECHANISMS, Values
from replug.token.worker.inside.open_token import OpenToken
from replug.token.worker.inside.program import Operations, serve

_Names = key_types.KeyType
_CURVES = {
    # DER of the curve's object identifier (RFC 5480), CKA_EC_PARAMS.
    _Names.P256: (KeyType.EC, "06082a8648ce3d030107"),
    _Names.P384: (KeyType.EC, "06052b81040022"),
    # The curve's name as a PrintableString (PKCS#11 v3.0, section 2.3.5), which SoftHSM wants.
    _Names.ED25519: (KeyType.EC_EDWARDS, "130c656477617264733235353139"),
}
_SIZES = {_Names.P256: 256, _Names.P384: 384}
_GENERATORS = {
    KeyType.RSA: Mechanism.RSA_PKCS_KEY_PAIR_GEN,
    KeyType.EC: Mechanism.EC_KEY_PAIR_GEN,
    KeyType.EC_EDWARDS: Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
}
_SIGNERS = {KeyType.RSA: "rsa", KeyType.EC: "ec", KeyType.EC_EDWARDS: "edwards"}
_IDS = range(1, 256)
"""The CKA_IDs to choose from: one byte, as PKCS#15 tools do it."""
# Whether it decrypts is left to the token: a TPM refuses templates that forbid what its keys can do.
_PUBLIC = {Attribute.PRIVATE: False, Attribute.ENCRYPT: DEFAULT}
_PRIVATE = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.DECRYPT: DEFAULT,
}
_GUARDED = {Attribute.SENSITIVE: b"\1", Attribute.EXTRACTABLE: b"\0"}


class KeyOperations(Operations):
    """The operations of a worker, on sessions that can write, and those that make keys."""

    def __init__(self, progress: Callable[[], None]) -> None:
        super().__init__(progress, writing=True)

    def makes(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """The types of keys that `token` can make and sign with (C_GetMechanismList, C_GetMechanismInfo).

        And whether it is write-protected.
        """
        slot = self.opened(header).slot
        with calling("C_GetTokenInfo"):
            protected = TokenFlag.WRITE_PROTECTED in slot.get_token().flags
        with calling("C_GetMechanismList"):
            able = set(slot.get_mechanisms())
        types = [
            name
            for name in _Names
            if _GENERATORS[_kind(name)] in able
            and not able.isdisjoint(SIGNATURE_MECHANISMS[_SIGNERS[_kind(name)]])
            and _has_size(slot, _GENERATORS[_kind(name)], name.bits or _SIZES.get(name, 0))
        ]
        return {"types": types, "write_protected": protected}, b""

    def free_id(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """`id` if no object of `token` that can be seen has it, else ""; the first such id if it is empty."""
        token = self.opened(header)
        wanted = [header["id"]] if header["id"] else [f"{number:02x}" for number in _IDS]
        return {"id": next((one for one in wanted if _is_free(token, one)), "")}, b""

    def make_key(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Make a key pair of `type` on `token`, with `id` and `label` (C_GenerateKeyPair).

        `guarded` is whether the token says that the private key cannot leave it.
        """
        token = self.opened(header)
        if not _is_free(token, header["id"]):
            raise RefusedError(Verdict.FAILED, "another object has this CKA_ID by now")
        with calling("C_GenerateKeyPair"):
            _generate(token.session, header)
        wanted: Values = {
            Attribute.CLASS: encode_number(ObjectClass.PRIVATE_KEY),
            Attribute.ID: bytes.fromhex(header["id"]),
        }
        made = [token.read(handle, tuple(_GUARDED)) for handle in token.find(1, wanted)]
        return {"guarded": made == [_GUARDED]}, b""


def _generate(session: Any, header: Header) -> None:
    name = _Names(header["type"])
    how: dict[str, Any] = {
        "id": bytes.fromhex(header["id"]),
        "label": header["label"],
        "store": True,
        "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
        "public_template": _PUBLIC,
        "private_template": _PRIVATE,
    }
    if name.bits:
        session.generate_keypair(KeyType.RSA, name.bits, **how)
        return
    kind, curve = _CURVES[name]
    parameters = session.create_domain_parameters(
        kind, {Attribute.EC_PARAMS: bytes.fromhex(curve)}, local=True
    )
    parameters.generate_keypair(**how)


def _kind(name: key_types.KeyType) -> KeyType:
    return KeyType.RSA if name.bits else _CURVES[name][0]


def _has_size(slot: Any, generator: Mechanism, bits: int) -> bool:
    """Whether keys of so many bits can be made; a module that does not say may be able to."""
    try:
        info = slot.get_mechanism_info(generator)
    except PKCS11Error:
        return True
    return not bits or not info.max_key_length or info.min_key_length <= bits <= info.max_key_length


def _is_free(token: OpenToken, key_id: str) -> bool:
    return not token.find(1, {Attribute.ID: bytes.fromhex(key_id)})


def work(connection: socket.socket) -> NoReturn:
    """Do what is asked on `connection` until it is closed, and end the process."""
    serve(connection, KeyOperations)
