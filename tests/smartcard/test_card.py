"""The virtual card and its reader themselves, by the word of programs that know nothing of replug.

What the other tests here say about replug is worth as much as this card is like a real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from rigs.home import Home
from rigs.pcscd import Pcscd, home_with_pcscd, select, verify
from rigs.piv_card import PIN, PIV, Card, Instruction
from rigs.piv_keys import Algorithm, Key, Slot
from rigs.terminal import Done

SLOT_IDS = {Slot.AUTHENTICATION: "01", Slot.SIGNATURE: "02", Slot.CARD_AUTHENTICATION: "04"}
"""CKA_ID by slot; both modules have the same."""
WRONG = "654321"

Tool = Callable[..., Done]


@pytest.fixture
def tool(home: Home, module: Path) -> Tool:
    """Runs pkcs11-tool with the module."""
    return lambda *arguments: home.run("pkcs11-tool", "--module", module, *arguments)


def sign(tool: Tool, home: Home, slot: Slot, key: Key, pin: str = PIN) -> Done:
    """Signs with the key in `slot`; the signature, if there is one, has to be that of `key`."""
    digest = Hash(SHA256())
    digest.update(b"data")
    data, signature = home.write("digest", digest.finalize()), home.folder / "signature"
    mechanism = "ECDSA"
    if key.algorithm is Algorithm.RSA_2048:
        mechanism = "RSA-PKCS"
        prefix = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo for SHA-256
        data.write_bytes(prefix + data.read_bytes())
    done = tool(
        "--login", "--pin", pin, "--sign", "--mechanism", mechanism, "--id", SLOT_IDS[slot],
        "--signature-format", "openssl", "--input-file", data, "--output-file", signature,
    )  # fmt: skip
    if done.status == 0:
        check(key, signature.read_bytes())
    return done


def check(key: Key, signature: bytes) -> None:
    """Raises InvalidSignature unless this is the key's signature of "data"."""
    public = key.private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, b"data", padding.PKCS1v15(), SHA256())
    else:
        public.verify(signature, b"data", ec.ECDSA(SHA256()))


def test_both_modules_list_the_card_and_its_keys(tool: Tool, card: Card) -> None:
    slots = tool("--list-slots").out
    objects = tool("--list-objects", "--type", "pubkey").out

    assert "Yubico YubiKey 00 00" in slots
    assert "login required" in slots
    kinds = re.findall(r"^Public Key Object; (.*?) *$", objects, re.MULTILINE)
    assert kinds == ["EC  EC_POINT 256 bits", "EC  EC_POINT 384 bits", "RSA 2048 bits"]
    assert (card.verifies, card.signatures) == (0, 0)


def test_opensc_takes_it_for_a_piv_card(home: Home, card: Card) -> None:
    done = home.run("opensc-tool", "--name")

    assert (done.status, done.out) == (0, "Personal Identity Verification Card\n")
    serial = home.run("opensc-tool", "--serial").out
    assert f"{card.serial:08X}" in serial.replace(" ", "")


def test_yubicos_own_tool_knows_it(home: Home, card: Card) -> None:
    done = home.run("yubico-piv-tool", "--reader", "Yubico", "--action", "status")

    assert f"Serial Number:\t{card.serial}" in done.out, done
    assert "PIN tries left:\t3" in done.out


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_every_kind_of_key_signs_in_every_slot(
    algorithm: Algorithm, tool: Tool, pcscd: Pcscd, home: Home
) -> None:
    card = Card(keys=dict.fromkeys(SLOT_IDS, algorithm))
    pcscd.slot.insert(card)
    pcscd.await_present()

    for slot, key in card.keys.items():
        assert sign(tool, home, slot, key).status == 0

    assert (card.signatures, card.wrong_pins, card.tries_left) == (3, 0, 3)


def test_a_signature_by_another_key_would_be_noticed(tool: Tool, pcscd: Pcscd, home: Home) -> None:
    """The counter-test of `sign`."""
    card = Card(keys=dict.fromkeys(SLOT_IDS, Algorithm.P256))
    pcscd.slot.insert(card)
    pcscd.await_present()

    with pytest.raises(InvalidSignature):
        sign(tool, home, Slot.AUTHENTICATION, card.keys[Slot.SIGNATURE])


def test_the_slots_want_the_pin_once_always_and_never(pcscd: Pcscd) -> None:
    """What the card insists on, whatever a module does."""
    card = Card(keys=dict.fromkeys(SLOT_IDS, Algorithm.P256))
    pcscd.slot.insert(card)
    pcscd.await_present()
    once, always, never = (general_authenticate(slot) for slot in SLOT_IDS)

    answers = pcscd.transmit(
        select(PIV), once, always, never, verify(PIN), always, always, once, once, verify(PIN), once, always
    )

    allowed = [answer[-2:].hex() for answer in answers if answer not in (answers[0], b"\x90\0")]
    assert allowed == ["6982", "6982", "9000", "9000", "6982", "9000", "9000", "9000", "6982"]


def general_authenticate(slot: Slot) -> bytes:
    """The command to sign zeros with a P-256 key."""
    template = bytes([0x7C, 36, 0x82, 0, 0x81, 32]) + bytes(32)
    return (
        bytes([0, Instruction.GENERAL_AUTHENTICATE, Algorithm.P256, slot, len(template)]) + template + b"\0"
    )


def test_the_pin_is_forgotten_when_real_cards_forget_it(pcscd: Pcscd, card: Card) -> None:
    for forget in (pcscd.reset_card, pcscd.select_other_application, pcscd.restart):
        assert pcscd.send_pin(PIN) == "9000"
        assert card.pin_verified
        forget()
        assert not card.pin_verified
        pcscd.await_present()

    assert pcscd.send_pin(PIN) == "9000"
    pcscd.slot.insert(pcscd.slot.remove())
    pcscd.await_present()
    assert not card.pin_verified


def test_wrong_pins_count_and_block(tool: Tool, home: Home, card: Card) -> None:
    key = card.keys[Slot.AUTHENTICATION]

    seen = []
    for pin in (WRONG, WRONG, PIN, WRONG, WRONG, WRONG, PIN):
        done = sign(tool, home, Slot.AUTHENTICATION, key, pin)
        error = re.search(r"CKR_\w+", done.err)
        seen.append((error and error[0], card.tries_left))

    assert seen == [
        ("CKR_PIN_INCORRECT", 2),
        ("CKR_PIN_INCORRECT", 1),
        (None, 3),
        ("CKR_PIN_INCORRECT", 2),
        ("CKR_PIN_INCORRECT", 1),
        ("CKR_PIN_INCORRECT", 0),
        ("CKR_PIN_LOCKED", 0),
    ]
    assert (card.wrong_pins, card.signatures) == (5, 1)
    assert "user PIN locked" in tool("--list-slots").out


def test_modules_see_the_card_go_and_come_and_another_in_its_place(
    tool: Tool, pcscd: Pcscd, card: Card
) -> None:
    other = Card(serial=5004321)

    def serials() -> list[str]:
        return re.findall(r"serial num\s+: (\w+)", tool("--list-slots").out)

    mine = serials()
    pcscd.slot.remove()
    pcscd.await_empty()
    assert (len(mine), serials()) == (1, [])

    pcscd.slot.insert(card)
    pcscd.await_present()
    assert serials() == mine

    pcscd.slot.swap(other)
    pcscd.await_present()
    assert len(serials()) == 1
    assert serials() != mine


def test_both_slots_of_the_reader_take_cards(tool: Tool, pcscd: Pcscd, card: Card) -> None:
    pcscd.slot2.insert(Card(serial=5004321))
    pcscd.slot2.await_power()

    assert len(re.findall(r"serial num", tool("--list-slots").out)) == 2


def test_a_touch_lets_a_signature_through(tool: Tool, home: Home, card: Card) -> None:
    card.needs_touch = True
    with ThreadPoolExecutor() as pool:
        signing = pool.submit(sign, tool, home, Slot.AUTHENTICATION, card.keys[Slot.AUTHENTICATION])
        card.await_signature(1)
        assert not signing.done()
        card.touch()

    assert signing.result().status == 0
    assert card.signatures == 1


def test_without_a_touch_a_signature_is_refused(tool: Tool, home: Home, card: Card) -> None:
    card.needs_touch, card.touch_timeout = True, 0.1

    assert sign(tool, home, Slot.AUTHENTICATION, card.keys[Slot.AUTHENTICATION]).status == 1
    assert (card.signatures, card.wrong_pins) == (0, 0)


def test_a_card_that_refuses(tool: Tool, home: Home, card: Card) -> None:
    card.refuses = True

    assert sign(tool, home, Slot.AUTHENTICATION, card.keys[Slot.AUTHENTICATION]).status == 1
    assert (card.signatures, card.wrong_pins) == (0, 0)


@pytest.mark.parametrize("disturb", ["remove", "lose_power"])
def test_a_signature_that_is_interrupted_fails(
    disturb: str, tool: Tool, home: Home, pcscd: Pcscd, card: Card
) -> None:
    pcscd.slot.at_next(Instruction.GENERAL_AUTHENTICATE, getattr(pcscd.slot, disturb))

    done = sign(tool, home, Slot.AUTHENTICATION, card.keys[Slot.AUTHENTICATION])

    assert done.status != 0
    assert card.signatures == 0


def test_a_card_pulled_while_it_waits_for_a_touch(home: Home, pcscd: Pcscd, card: Card) -> None:
    card.needs_touch = True
    with ThreadPoolExecutor() as pool:
        signing = pool.submit(
            pcscd.transmit, select(PIV), verify(PIN), general_authenticate(Slot.AUTHENTICATION)
        )
        card.await_signature(1)
        pcscd.slot.remove()
        pcscd.await_empty()

        with pytest.raises(AssertionError, match="SCardTransmit: 0x80100016"):  # SCARD_E_NOT_TRANSACTED
            signing.result()
    assert card.signatures == 0


def test_two_machines_side_by_side_do_not_see_each_other(home: Home, pcscd: Pcscd, card: Card) -> None:
    with home_with_pcscd() as (neighbour, other):
        other.slot.insert(Card(serial=5004321))
        other.await_present()

        serials = [place.run("opensc-tool", "--serial").out.replace(" ", "") for place in (home, neighbour)]
    assert [f"{number:08X}" in serial for number in (5001234, 5004321) for serial in serials] == [
        True,
        False,
        False,
        True,
    ]
