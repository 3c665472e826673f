"""Which keys of a token are offered, and in which order."""

from __future__ import annotations

import random

from doubles.stand_ins import Key

from replug.token.keys import TokenKey
from replug.token.shown_keys import ShownKeys

KEYS = [Key() for _ in range(5)]


def shown(keys: list[Key]) -> dict[bytes, TokenKey]:
    return {key.blob: key.token_key() for key in keys}


def test_keys_keep_their_places_though_the_module_shows_them_in_another_order() -> None:
    """SoftHSM has a new order in each process."""
    changes: list[None] = []
    keys = ShownKeys(lambda: changes.append(None))
    keys.saw_logged_in(shown(KEYS[:4]))
    places = [*keys.offered]
    for _ in range(20):
        keys.saw_without_login(shown(random.sample(KEYS[:4], 4)))
        keys.saw_logged_in(shown(random.sample(KEYS[:4], 4)))
        assert [*keys.offered] == places
    assert len(changes) == 1


def test_new_keys_come_last() -> None:
    keys = ShownKeys(lambda: None)
    keys.saw_logged_in(shown(KEYS[:3]))
    keys.saw_logged_in(shown([KEYS[4], *KEYS[2::-1], KEYS[3]]))
    assert [*keys.offered] == [key.blob for key in (*KEYS[:3], KEYS[4], KEYS[3])]
