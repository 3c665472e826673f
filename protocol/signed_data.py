"""What is signed besides logins and certificates: SSHSIG (PROTOCOL.sshsig), host key proofs (PROTOCOL)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader, Writer

SSHSIG_MAGIC = b"SSHSIG"
HOST_KEY_PROOF = b"hostkeys-prove-00@openssh.com"
_HASHES = ("sha256", "sha512")


@dataclass(frozen=True)
class SshSignature:
    """What `ssh-keygen -Y sign` has signed: for which use, and the hash of the message."""

    namespace: bytes
    hash_name: str
    digest: bytes

    def __post_init__(self) -> None:
        if not self.namespace:
            raise ProtocolError("an SSHSIG without a namespace")
        if self.hash_name not in _HASHES or len(self.digest) != hashlib.new(self.hash_name).digest_size:
            raise ProtocolError(f"an SSHSIG with {len(self.digest)} bytes of {visible(self.hash_name)}")

    def encode(self) -> bytes:
        """Return the data to sign."""
        writer = Writer().raw(SSHSIG_MAGIC).string(self.namespace).string(b"")
        return bytes(writer.text(self.hash_name).string(self.digest))

    @classmethod
    def decode(cls, data: bytes) -> SshSignature:
        """Return the signature's description from data to sign; `ProtocolError` if it is not one.

        The reserved field must be empty: what verifies signatures puts an empty one there.
        """
        if not data.startswith(SSHSIG_MAGIC):
            raise ProtocolError("not an SSHSIG")
        reader = Reader(data[len(SSHSIG_MAGIC) :])
        namespace, reserved = reader.cstring(), reader.string()
        if reserved:
            raise ProtocolError("an SSHSIG with a reserved field")
        signature = cls(namespace, reader.text(), reader.string())
        reader.check_end()
        return signature


@dataclass(frozen=True)
class HostKeyProof:
    """What sshd has signed to show that it holds another host key (UpdateHostKeys)."""

    session_id: bytes
    host_key: bytes

    def __post_init__(self) -> None:
        if not self.session_id:
            raise ProtocolError("a host key proof without a session identifier")

    def encode(self) -> bytes:
        """Return the data to sign."""
        return bytes(Writer().string(HOST_KEY_PROOF).string(self.session_id).string(self.host_key))

    @classmethod
    def decode(cls, data: bytes) -> HostKeyProof:
        """Return the proof from data to sign; `ProtocolError` if it is not one."""
        reader = Reader(data)
        if reader.string() != HOST_KEY_PROOF:
            raise ProtocolError("not a host key proof")
        proof = cls(reader.string(), reader.string())
        reader.check_end()
        return proof
