"""The list of keys fits what clients accept, whatever there is to list."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identity import LONGEST_COMMENT, Identity
from replug.agent.keys.listing import MOST_IDENTITIES, Listing
from replug.protocol.constants import MAX_MESSAGE
from replug.token.identity import TokenId
from replug.token.prompts.request import Asker


@dataclass(frozen=True)
class Held(Identity):
    """An identity of some holder."""

    on: TokenId | None = None

    @property
    def holder(self) -> TokenId | None:
        return self.on

    @property
    def distance(self) -> tuple[bool, bool, bool]:
        return False, False, False

    async def sign(self, data: bytes, flags: int, asker: Asker, notices: TouchNotices) -> bytes:
        raise NotImplementedError


def held(count: int, holder: str = "", size: int = 51, comment: bytes = b"key") -> list[Held]:
    token = TokenId("Maker", "Model", "1", holder) if holder else None
    blobs = (f"{holder}{number:08}".encode().ljust(size, b".") for number in range(count))
    return [Held(blob, comment, KeyConstraints(), token) for blob in blobs]


def test_what_fits_is_listed_in_its_order() -> None:
    identities = [*held(3, "work"), *held(2), *held(3, "home")]
    listing = Listing.of(identities)
    assert [one.key_blob for one in listing.answer.identities] == [one.blob for one in identities]
    assert listing.left_out == ()


@pytest.mark.parametrize("comment", [b"c" * 300_000, "é".encode() * 600, b"c" + "é".encode() * 600])
def test_long_comments_are_cut(comment: bytes) -> None:
    [entry] = Listing.of(held(1, comment=comment)).answer.identities
    assert len(entry.comment) in (LONGEST_COMMENT, LONGEST_COMMENT - 1)
    assert comment.startswith(entry.comment)
    entry.comment.decode()


@pytest.mark.parametrize(("count", "size"), [(3000, 51), (1000, 500), (1, 300_000)])
def test_the_token_with_most_to_list_goes_short(count: int, size: int) -> None:
    few, many = [*held(5), *held(100, "home")], held(count, "many", size)
    listing = Listing.of([*many, *few])
    answer = listing.answer
    assert len(answer.encode()) <= MAX_MESSAGE
    assert len(answer.identities) <= MOST_IDENTITIES
    assert {one.blob for one in few} <= {one.key_blob for one in answer.identities}
    assert len(answer.identities) + len(listing.left_out) == count + len(few)
    assert {one.holder for one in listing.left_out} == {many[0].holder}
    kept = [one.blob for one in many][: len(answer.identities) - len(few)]
    assert [one.key_blob for one in answer.identities][: len(kept)] == kept
