"""Decodes the payload of a frame: the type byte chooses the message, and every byte must be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from replug.protocol.constants import MessageType
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    RemoveAllIdentities,
    RemoveAllRsa1Identities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.wire import ProtocolError, Reader


class UnknownMessageError(ProtocolError):
    """A message of unknown type, or one that is not sent in this direction; the answer is FAILURE."""


Request: TypeAlias = (
    RequestIdentities
    | SignRequest
    | AddIdentity
    | RemoveIdentity
    | RemoveAllIdentities
    | RemoveAllRsa1Identities
    | AddSmartcardKey
    | RemoveSmartcardKey
    | Lock
    | Unlock
    | Extension
)
Response: TypeAlias = (
    Failure | Success | IdentitiesAnswer | SignResponse | ExtensionFailure | ExtensionResponse
)

_REQUESTS: dict[int, Callable[[Reader], Request]] = {
    MessageType.REQUEST_IDENTITIES: RequestIdentities.decode,
    MessageType.SIGN_REQUEST: SignRequest.decode,
    MessageType.ADD_IDENTITY: AddIdentity.decode,
    MessageType.ADD_ID_CONSTRAINED: AddIdentity.decode,
    MessageType.REMOVE_IDENTITY: RemoveIdentity.decode,
    MessageType.REMOVE_ALL_IDENTITIES: RemoveAllIdentities.decode,
    MessageType.REMOVE_ALL_RSA1_IDENTITIES: RemoveAllRsa1Identities.decode,
    MessageType.ADD_SMARTCARD_KEY: AddSmartcardKey.decode,
    MessageType.ADD_SMARTCARD_KEY_CONSTRAINED: AddSmartcardKey.decode,
    MessageType.REMOVE_SMARTCARD_KEY: RemoveSmartcardKey.decode,
    MessageType.LOCK: Lock.decode,
    MessageType.UNLOCK: Unlock.decode,
    MessageType.EXTENSION: Extension.decode,
}
_RESPONSES: dict[int, Callable[[Reader], Response]] = {
    MessageType.FAILURE: Failure.decode,
    MessageType.SUCCESS: Success.decode,
    MessageType.IDENTITIES_ANSWER: IdentitiesAnswer.decode,
    MessageType.SIGN_RESPONSE: SignResponse.decode,
    MessageType.EXTENSION_FAILURE: ExtensionFailure.decode,
    MessageType.EXTENSION_RESPONSE: ExtensionResponse.decode,
}


_M = TypeVar("_M")


def _decoder(decoders: Mapping[int, Callable[[Reader], _M]]) -> Callable[[bytes | bytearray], _M]:
    def decode(payload: bytes | bytearray) -> _M:
        reader = Reader(payload)
        number = reader.byte()
        if number not in decoders:
            raise UnknownMessageError(f"unexpected message type {number}")
        try:
            message = decoders[number](reader)
            reader.check_end()
        except ProtocolError:
            reader.wipe_secrets()
            raise
        finally:
            if isinstance(payload, bytearray):
                reader.wipe()
        return message

    return decode


decode_request = _decoder(_REQUESTS)
"""Return the request a client sent; of a bytearray, only the request itself holds a copy.

Raises `UnknownMessageError` if the type is not a known request, `ProtocolError` if it is malformed.
"""

decode_response = _decoder(_RESPONSES)
"""Return the response an agent sent; raises like `decode_request`."""
