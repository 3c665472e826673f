"""What a user can do about a locked PIN, which depends on the token and on its module."""

from __future__ import annotations

from pathlib import Path

from replug.token.identity import TokenId

_PIV = "unblock it with the PUK (ykman piv access unblock-pin, or yubico-piv-tool --action unblock-pin)"
_TPM = "the TPM's lockout ends by itself, or is cleared with tpm2_dictionarylockout --clear-lockout"
_SECURITY_OFFICER = (
    "the security officer can set a new one: pkcs11-tool --module {module} --login --login-type so --init-pin"
)


def how_to_unlock(module: str, token: TokenId) -> str:
    """The next step after too many wrong PINs; `module` is the path of the module that shows the token.

    A wrong advice can cost tries: a SmartCard-HSM counts a "PUK" as a wrong PIN of its security officer. So
    only PIV cards are said to have a PUK, and for what is not known otherwise it is PKCS#11's own way,
    C_InitPIN.
    """
    if token.manufacturer.startswith(("piv_II", "Yubico")):
        return _PIV
    if Path(module).name.startswith("libtpm2_pkcs11"):
        return _TPM
    return _SECURITY_OFFICER.format(module=module)
