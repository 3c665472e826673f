"""Which keys of a token are offered, and in which order, before and after login, in and out."""

from __future__ import annotations

import random

from doubles.stand_ins import Key

from replug.token.keys import TokenKey, read_keys
from replug.token.serving.shown_keys import ShownKeys

KEYS = [Key() for _ in range(5)]
SIGNS, ATTESTS = Key("signs"), Key("attests", signs=False)


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


def seen(*keys: Key, logged_in: bool) -> dict[bytes, TokenKey]:
    return read_keys([key.record(private_visible=logged_in) for key in keys])


def offered(keys: ShownKeys) -> list[str]:
    return [key.label for key in keys.offered.values()]


def test_what_a_login_has_shown_stays_until_another_one_says_otherwise() -> None:
    keys = ShownKeys(lambda: None)
    keys.saw_without_login(seen(SIGNS, ATTESTS, logged_in=False))
    assert offered(keys) == ["signs", "attests"]
    keys.saw_logged_in(seen(SIGNS, ATTESTS, logged_in=True))
    assert offered(keys) == ["signs"]
    for _ in range(2):
        keys.left()
        keys.saw_without_login(seen(SIGNS, ATTESTS, logged_in=False))
        assert offered(keys) == ["signs"]
    new = Key("new")
    keys.saw_without_login(seen(SIGNS, ATTESTS, new, logged_in=False))
    assert offered(keys) == ["signs", "new"]


def test_a_login_that_showed_no_key_is_not_the_last_word() -> None:
    """Otherwise nobody would log in again."""
    keys = ShownKeys(lambda: None)
    keys.saw_without_login(seen(SIGNS, logged_in=False))
    keys.saw_logged_in({})
    keys.saw_without_login(seen(SIGNS, logged_in=False))
    assert offered(keys) == []
    keys.left()
    keys.saw_without_login(seen(SIGNS, logged_in=False))
    assert offered(keys) == ["signs"]
