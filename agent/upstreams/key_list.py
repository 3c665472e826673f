"""The keys that another agent has listed."""

from __future__ import annotations

from functools import cached_property

from replug.agent.keys.identity import LONGEST_COMMENT
from replug.agent.keys.listing import cut_to_fit
from replug.agent.upstreams.error import UpstreamError
from replug.protocol.decoding import decode_response
from replug.protocol.keys import blob_algorithm
from replug.protocol.messages import Failure, IdentitiesAnswer, ListedIdentity
from replug.protocol.wire import ProtocolError


class KeyList:
    """As many as fit into a list, in order, each once."""

    def __init__(self, entries: tuple[ListedIdentity, ...], *, refused: bool) -> None:
        self.entries = entries
        self.refused = refused
        """Whether the agent did not list its keys, as one does that is locked."""

    @cached_property
    def comments(self) -> dict[bytes, bytes]:
        """By blob."""
        return {entry.key_blob: entry.comment for entry in self.entries}

    @classmethod
    def decode(cls, name: str, reply: bytes) -> KeyList:
        """What is in the reply of the agent called `name`; UpstreamError. Slow for a long one."""
        try:
            answer = decode_response(reply)
        except ProtocolError as error:
            raise UpstreamError(f"{name} gives no usable answer: {error}") from error
        if isinstance(answer, Failure):
            return cls((), refused=True)
        if not isinstance(answer, IdentitiesAnswer):
            raise UpstreamError(f"{name} gives no usable answer: {type(answer).__name__}")
        keys = {entry.key_blob: entry for entry in answer.identities if _is_key(entry.key_blob)}
        return cls(cut_to_fit([_shortened(entry) for entry in keys.values()]), refused=False)


def _is_key(blob: bytes) -> bool:
    try:
        return bool(blob_algorithm(blob))
    except ProtocolError:
        return False


def _shortened(entry: ListedIdentity) -> ListedIdentity:
    if len(entry.comment) <= LONGEST_COMMENT:
        return entry
    comment = entry.comment[:LONGEST_COMMENT].decode(errors="ignore").encode()
    return ListedIdentity(entry.key_blob, comment)
