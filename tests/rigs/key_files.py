"""Keys in files, as ssh-keygen makes them."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

from rigs.home import Home

POST_QUANTUM = "mldsa44-ed25519"
_NEW = "ssh-mldsa44-ed25519"
"""Its name since OpenSSH 10.6; keys of earlier releases are of no use with that one."""


def _has_post_quantum_keys() -> bool:
    asked = subprocess.run(["ssh", "-Q", "key"], capture_output=True, text=True)
    return _NEW in asked.stdout.split()


FILE_KINDS: Mapping[str, tuple[str, ...]] = {
    "ed25519": ("-t", "ed25519"),
    "p256": ("-t", "ecdsa", "-b", "256"),
    "p384": ("-t", "ecdsa", "-b", "384"),
    "p521": ("-t", "ecdsa", "-b", "521"),
    "rsa": ("-t", "rsa", "-b", "2048"),
    **({POST_QUANTUM: ("-t", POST_QUANTUM)} if _has_post_quantum_keys() else {}),
}
"""What the ssh-keygen at hand makes."""


def make_key(home: Home, name: str, kind: str = "ed25519") -> Path:
    """Makes a key of `kind` without a passphrase; its comment is its name. The file, beside it a .pub."""
    path = home.folder / name
    done = home.run("ssh-keygen", "-q", "-N", "", "-C", name, *FILE_KINDS[kind], "-f", path)
    assert done.status == 0, done
    return path


def certify(home: Home, ca: Path, public: Path, *options: str) -> Path:
    """Has the CA in a file sign `public`; the certificate, beside it."""
    done = home.run("ssh-keygen", "-q", "-s", ca, "-I", "id", *options, public)
    assert done.status == 0, done
    return public.with_name(f"{public.stem}-cert.pub")


def public_of(private: Path) -> Path:
    """The .pub file of a key."""
    return private.with_name(f"{private.name}.pub")


def blob_of(public: Path) -> bytes:
    """What the line of a .pub file has in base64."""
    return b64decode(public.read_text().split()[1])
