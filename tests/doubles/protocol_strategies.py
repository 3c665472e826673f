"""Hypothesis strategies for everything that can be on the wire, small but with every field moving."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.constraints import (
    AssociatedCerts,
    Confirm,
    Constraint,
    DestinationConstraint,
    Hop,
    HopKey,
    Lifetime,
    RestrictDestination,
    SkProvider,
)
from replug.protocol.extensions import QueryResponse, SessionBind
from replug.protocol.keys import Curve, EcdsaPublicKey, Ed25519PublicKey, RsaPublicKey, SkPublicKey
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    ListedIdentity,
    Lock,
    RemoveAllIdentities,
    RemoveAllRsa1Identities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.private_keys import (
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    PrivateKey,
    RsaPrivateKey,
    SkPrivateKey,
)
from replug.protocol.signed_data import HostKeyProof, SshSignature

bounded = settings(max_examples=100, derandomize=True, database=None, deadline=None)
"""The same examples in every run, and no clock: a run on a loaded machine decides nothing."""

uint32s = st.integers(0, 2**32 - 1)
uint64s = st.integers(0, 2**64 - 1)
strings = st.binary(max_size=12)
cstrings = strings.map(lambda value: value.replace(b"\0", b""))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def tuples_of(values: st.SearchStrategy, **size: int) -> st.SearchStrategy:
    return st.lists(values, **{"max_size": 3, **size}).map(tuple)


def odd(bits: int) -> st.SearchStrategy[int]:
    return st.integers(2 ** (bits - 1), 2**bits - 1).map(lambda number: number | 1)


rsa_keys = st.builds(
    RsaPublicKey, e=st.sampled_from((3, 17, 65537)), n=st.sampled_from((1024, 1031)).flatmap(odd)
)
ecdsa_keys = st.sampled_from(Curve).flatmap(
    lambda curve: st.binary(min_size=2 * curve.coordinate_size, max_size=2 * curve.coordinate_size).map(
        lambda coordinates: EcdsaPublicKey(curve, b"\x04" + coordinates)
    )
)
ed25519_keys = st.builds(Ed25519PublicKey, st.binary(min_size=32, max_size=32))
public_keys = rsa_keys | ecdsa_keys | ed25519_keys
sk_keys = st.builds(
    SkPublicKey, ecdsa_keys.filter(lambda key: key.curve is Curve.NISTP256) | ed25519_keys, texts
)

options = tuples_of(st.tuples(texts, strings))


def certificates_for(key: st.SearchStrategy) -> st.SearchStrategy[Certificate]:
    return st.builds(
        Certificate,
        nonce=strings,
        key=key,
        serial=uint64s,
        type=st.sampled_from(CertificateType),
        key_id=cstrings,
        principals=tuples_of(cstrings),
        valid_after=uint64s,
        valid_before=uint64s,
        critical_options=options,
        extensions=options,
        reserved=strings,
        ca_key=public_keys.map(lambda ca: ca.encode()),
        signature=strings,
    )


certificates = certificates_for(public_keys | sk_keys)
ssh_signatures = st.sampled_from((("sha256", 32), ("sha512", 64))).flatmap(
    lambda known: st.builds(
        SshSignature,
        cstrings.filter(bool),
        st.just(known[0]),
        st.binary(min_size=known[1], max_size=known[1]),
    )
)
host_key_proofs = st.builds(HostKeyProof, strings.filter(bool), strings)


@st.composite
def private_keys(draw: st.DrawFn) -> PrivateKey:
    public = draw(public_keys | sk_keys)
    certificate = draw(st.none() | certificates_for(st.just(public)))
    match public:
        case RsaPublicKey():
            number = st.integers(1, public.n - 1)
            return RsaPrivateKey(
                public, draw(number), draw(number), draw(number), draw(number), certificate=certificate
            )
        case EcdsaPublicKey():
            d = draw(st.integers(1, 256**public.curve.coordinate_size - 1))
            return EcdsaPrivateKey(public, d, certificate=certificate)
        case Ed25519PublicKey():
            seed = draw(st.binary(min_size=32, max_size=32))
            return Ed25519PrivateKey(public, seed, certificate=certificate)
        case SkPublicKey():
            flags = draw(st.integers(0, 255))
            return SkPrivateKey(public, flags, draw(strings), draw(strings), certificate=certificate)


hop_keys = st.builds(HopKey, blob=strings, is_ca=st.booleans())
names = texts.filter(bool)
origins = st.just(Hop("", "", ()))
from_hops = origins | st.builds(Hop, st.just(""), names, tuples_of(hop_keys, min_size=1))
to_hops = st.builds(Hop, texts, names, tuples_of(hop_keys, min_size=1))
destinations = st.builds(DestinationConstraint, from_hops, to_hops)

_key_constraints = (
    st.builds(Lifetime, uint32s),
    st.just(Confirm()),
    st.builds(RestrictDestination, tuples_of(destinations)),
)
_sk_provider = st.builds(SkProvider, cstrings)
_associated_certs = st.builds(AssociatedCerts, st.booleans(), tuples_of(strings))
constraints: st.SearchStrategy[Constraint] = st.one_of(*_key_constraints, _sk_provider, _associated_certs)


def different(*kinds: st.SearchStrategy[Constraint]) -> st.SearchStrategy[tuple[Constraint, ...]]:
    return st.lists(st.one_of(*kinds), unique_by=type).map(tuple)


adds = st.builds(AddIdentity, private_keys(), cstrings, different(*_key_constraints, _sk_provider))
smartcard_adds = st.builds(
    AddSmartcardKey, cstrings, cstrings, different(*_key_constraints, _associated_certs)
)

closed_requests = st.one_of(
    st.builds(RequestIdentities),
    st.builds(SignRequest, strings, strings, uint32s),
    st.builds(RemoveIdentity, strings),
    st.builds(RemoveAllIdentities),
    st.builds(RemoveAllRsa1Identities),
    st.builds(RemoveSmartcardKey, cstrings, cstrings),
    st.builds(Lock, cstrings),
    st.builds(Unlock, cstrings),
)
"""Requests whose bytes tell where they end; adding goes on with constraints, an extension with anything."""
requests = closed_requests | adds | smartcard_adds | st.builds(Extension, texts, strings)

closed_responses = st.one_of(
    st.builds(Failure),
    st.builds(Success),
    st.builds(IdentitiesAnswer, tuples_of(st.builds(ListedIdentity, strings, strings))),
    st.builds(SignResponse, strings),
    st.builds(ExtensionFailure),
)
responses = closed_responses | st.builds(ExtensionResponse, texts, strings)

session_binds = st.builds(SessionBind, strings, strings, strings, st.booleans())
query_responses = st.builds(QueryResponse, tuples_of(texts))


@st.composite
def mutated(draw: st.DrawFn, encoded: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with one of them changed, left out or put in: nearly right is what parsers fail on."""
    data = draw(encoded)
    start = draw(st.integers(0, len(data)))
    return data[:start] + draw(st.binary(max_size=2)) + data[start + draw(st.integers(0, 2)) :]
