"""All tokens that are tried, by the names that `make tokens PYTEST='-k ...'` knows them by."""

from __future__ import annotations

from collections.abc import Mapping

from rigs.tried import TriedToken
from rigs.tried_caml_crush import TriedCamlCrush
from rigs.tried_card import TriedOpenSC, TriedYkcs11
from rigs.tried_nss import TriedNSS
from rigs.tried_opencryptoki import TriedOpenCryptoki
from rigs.tried_p11_kit_remote import TriedRemote
from rigs.tried_softhsm import TriedSoftHSM, TriedSpy
from rigs.tried_tpm import TriedTPM

TOKENS: Mapping[str, type[TriedToken]] = {
    "softhsm": TriedSoftHSM,
    "spy": TriedSpy,
    "opensc": TriedOpenSC,
    "ykcs11": TriedYkcs11,
    "tpm": TriedTPM,
    "caml-crush": TriedCamlCrush,
    "p11-kit-remote": TriedRemote,
    "opencryptoki": TriedOpenCryptoki,
    "nss": TriedNSS,
}
"""In the order of the table's columns."""
