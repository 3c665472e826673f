"""SoftHSM tokens with keys whose public halves the test knows from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from rigs.home import Home

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "123456"
SO_PIN = "12345678"

KINDS: Mapping[str, Callable[[], PrivateKeyTypes]] = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


class Token:
    """An initialised token in a home's token folder; `module` is how programs reach it."""

    module = MODULE
    pin = PIN

    def __init__(self, home: Home, label: str = "work") -> None:
        self.home = home
        self.label = label
        self._keys = 0
        self._privates: dict[str, PrivateKeyTypes] = {}
        self._run(
            "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN
        )

    def add(self, kind: str, label: str | None = None) -> Path:
        """Makes a key of `kind` outside, puts it on the token and returns its .pub file."""
        label = label or kind
        private = self._privates[label] = KINDS[kind]()
        self._import(label, private)
        public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return self.home.write(f"{label}.pub", public + b" " + label.encode() + b"\n", 0o644)

    def add_same(self, other: Token, label: str) -> None:
        """Puts the key with this label, which is on the `other` token, on this one as well."""
        self._import(label, other._privates[label])

    def _import(self, label: str, private: PrivateKeyTypes) -> None:
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.home.write(f"{label}.pem", pem)
        self._run(
            "softhsm2-util", "--import", path, "--token", self.label, "--label", label, "--id",
            self._new_id(), "--pin", PIN,
        )  # fmt: skip
        path.unlink()

    def generate(self, kind: str, label: str, *options: str) -> None:
        """Has the token make a key itself; `kind` and `options` are pkcs11-tool's."""
        self._run(
            "pkcs11-tool", "--module", MODULE, "--token-label", self.label, "--login", "--pin", PIN,
            "--keypairgen", "--key-type", kind, "--label", label, "--id", self._new_id(), "--usage-sign",
            *options,
        )  # fmt: skip

    def remove(self, label: str) -> None:
        """Deletes the key with this label."""
        for kind in ("privkey", "pubkey"):
            self._run(
                "pkcs11-tool", "--module", MODULE, "--token-label", self.label, "--login", "--pin", PIN,
                "--delete-object", "--type", kind, "--label", label,
            )  # fmt: skip

    def public(self, label: str) -> Path:
        """The .pub file of the key with this label."""
        return self.home.folder / f"{label}.pub"

    def _new_id(self) -> str:
        self._keys += 1
        return self._keys.to_bytes(1 + self._keys // 256).hex()

    def _run(self, *argv: str | Path) -> None:
        done = self.home.run(*argv)
        assert done.status == 0, done


def copy_token(token: Token, home: Home) -> Token:
    """The same token, keys and .pub files in another home: keys are slow to make, and copies are not."""
    shutil.copytree(token.home.folder / "tokens", home.folder / "tokens", dirs_exist_ok=True)
    for public in token.home.folder.glob("*.pub"):
        shutil.copy(public, home.folder)
    copy = Token.__new__(Token)
    copy.__dict__ |= token.__dict__ | {"home": home}
    return copy


def patched_module(home: Home, number: int) -> tuple[Path, str, Token]:
    """A SoftHSM of its own in `home`, so that a client can have several: a copy of the module that reads
    another environment variable than SOFTHSM2_CONF, the name of that, and its one token.
    """
    variable = f"SOFTHSM2_CO{number:02}"
    code = MODULE.read_bytes()
    assert b"SOFTHSM2_CONF" in code
    module = home.write(f"softhsm{number}.so", code.replace(b"SOFTHSM2_CONF", variable.encode()))
    folder = home.folder / f"softhsm{number}"
    folder.mkdir()
    return module, variable, Token(Home(folder))
