"""PKCS#11 URIs: RFC 7512's examples and rules, and what an SSH agent makes of them."""

from __future__ import annotations

import pytest
from doubles.protocol_strategies import bounded
from doubles.stand_ins import Key
from hypothesis import given
from hypothesis import strategies as st

from replug.token.identity import TokenId
from replug.token.names.uri import Uri, UriError, is_uri, parse_uri

EXAMPLES = {
    "pkcs11:": Uri(),
    "pkcs11:object=my-pubkey;type=public": Uri(object="my-pubkey", type="public"),
    "pkcs11:object=my-sign-key;type=private?module-name=mypkcs11": Uri(
        object="my-sign-key", type="private", module_name="mypkcs11"
    ),
    "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1": Uri(
        object="my-sign-key", type="private", module_path="/mnt/libmypkcs11.so.1"
    ),
    "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert": Uri(
        token="A name with a substring %;", object="my-certificate", type="cert"
    ),
    "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert": Uri(
        token="Name with a small A with acute: á", object="my-certificate", type="cert"
    ),
    # This one without its pin-source.
    "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;"
    "manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;"
    "id=%69%95%3E%5C%F4%BD%EC%91;serial=": Uri(
        token="The Software PKCS#11 Softtoken",
        manufacturer="Snake Oil, Inc.",
        model="1.0",
        object="my-certificate",
        type="cert",
        key_id=b"\x69\x95\x3e\x5c\xf4\xbd\xec\x91",
        serial="",
    ),
}
"""RFC 7512 section 3, those that can name SSH keys."""

REFUSED_EXAMPLES = {
    "pkcs11:slot-description=Sun%20Metaslot": "attribute slot-description is not supported",
    "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;"
    "library-version=1.23": "attribute library-manufacturer is not supported",
    "pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;"
    "id=%01%02%03%Ba%dd%Ca%fe%04%05%06": "attribute library-version is not supported",
    "pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a?"
    "pin-source=file:/etc/token_pin&vendor-bbb=value-b": "attribute vendor-aaa is not supported",
    "pkcs11:object=my-key;type=private?pin-source=file:/etc/token": "leave pin-source out",
    "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin": (
        "leave pin-value out"
    ),
}
"""RFC 7512 section 3, those that name a PIN, or narrow the choice by what a token does not tell of itself."""

YUBIKEY = TokenId("Yubico (www.yubico.com)", "PKCS#15 emulated", "5001234", "work")


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_rfc(text: str) -> None:
    assert parse_uri(text) == EXAMPLES[text]


@pytest.mark.parametrize("text", REFUSED_EXAMPLES)
def test_examples_of_the_rfc_that_are_refused(text: str) -> None:
    with pytest.raises(UriError, match=REFUSED_EXAMPLES[text]):
        parse_uri(text)


attribute_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
uris = st.builds(
    Uri,
    **dict.fromkeys(("token", "manufacturer", "serial", "model", "object"), st.none() | attribute_texts),
    key_id=st.none() | st.binary(max_size=12),
    type=st.sampled_from((None, "public", "private", "cert")),
    module_path=st.none() | attribute_texts.map("/{}".format),
    module_name=st.none() | attribute_texts.filter(lambda text: "/" not in text),
)


@bounded
@given(uris)
def test_every_uri_survives_being_written_and_read(uri: Uri) -> None:
    text = str(uri)
    assert parse_uri(text) == uri
    assert text.isascii()
    assert text.isprintable()


def test_the_canonical_form() -> None:
    uri = Uri(serial="1", object="a/b?c;d", token="é %", key_id=b"A\x00", module_path="/x y")
    assert str(uri) == "pkcs11:token=%C3%A9%20%25;serial=1;object=a%2Fb%3Fc%3Bd;id=%41%00?module-path=/x%20y"


@pytest.mark.parametrize("text", ["pkcs11:token=work", "PKCS11:token=work", "Pkcs11:token=work"])
def test_the_scheme_ignores_case(text: str) -> None:
    assert is_uri(text)
    assert parse_uri(text) == Uri(token="work")


@pytest.mark.parametrize("text", ["", "pkcs11", "/usr/lib/pkcs11:.so", " pkcs11:", "pkcs1:token=work"])
def test_what_is_no_uri_at_all(text: str) -> None:
    assert not is_uri(text)
    with pytest.raises(UriError, match="does not begin with pkcs11:"):
        parse_uri(text)


def test_an_empty_query_is_no_attribute() -> None:
    """RFC 7512 section 2.3: pk11-query may be empty, as pk11-path may."""
    assert parse_uri("pkcs11:?") == Uri()
    assert parse_uri("pkcs11:token=work?") == Uri(token="work")


def test_all_bytes_may_be_percent_encoded_and_hex_digits_ignore_case() -> None:
    assert parse_uri("pkcs11:token=%77%6f%6F%72k;id=%ff%FF%00") == Uri(token="woork", key_id=b"\xff\xff\x00")


def test_a_plus_is_a_plus() -> None:
    assert parse_uri("pkcs11:token=a+b") == Uri(token="a+b")


def test_each_part_has_reserved_characters_of_its_own() -> None:
    assert parse_uri("pkcs11:token=a&b:[]@!$'()*+,=") == Uri(token="a&b:[]@!$'()*+,=")
    assert parse_uri("pkcs11:?module-path=/|?x:[]@!$'()*+,=") == Uri(module_path="/|?x:[]@!$'()*+,=")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pkcs11:token=a;token=a", "token is given twice"),
        ("pkcs11:?module-name=a&module-name=b", "module-name is given twice"),
        ("pkcs11:token", "not an attribute with a value"),
        ("pkcs11:=a", "not an attribute with a value"),
        ("pkcs11:token=a;", "not an attribute with a value"),
        ("pkcs11:;", "not an attribute with a value"),
        ("pkcs11:token=a b", "must be percent-encoded"),
        ("pkcs11:token=é", "must be percent-encoded"),
        ("pkcs11:token=a/b", "must be percent-encoded"),
        ("pkcs11:token=a#b", "must be percent-encoded"),
        ("pkcs11:token=%", "must be percent-encoded"),
        ("pkcs11:token=%4", "must be percent-encoded"),
        ("pkcs11:token=%4g", "must be percent-encoded"),
        ("pkcs11:token=a\n", "must be percent-encoded"),
        ("pkcs11:?module-name=a;b", "must be percent-encoded"),
        ("pkcs11:token=%FF", "token is not UTF-8"),
        ("pkcs11:object=%C3", "object is not UTF-8"),
        ("pkcs11:token=a%00b", "token has a NUL"),
        ("pkcs11:?module-path=/%00", "module-path has a NUL"),
        ("pkcs11:Token=a", "Token is not supported"),
        ("pkcs11:slot-id=1", "slot-id is not supported"),
        ("pkcs11:pin-value=ABCD", "a PIN is not taken from a URI: leave pin-value out and type it"),
        ("pkcs11:type=secret-key", "not a kind of key"),
        ("pkcs11:type=data", "not a kind of key"),
        ("pkcs11:?module-path=lib/a.so", "not absolute"),
        ("pkcs11:?module-name=../a", "is a path"),
    ],
)
def test_what_is_refused_and_why(text: str, reason: str) -> None:
    with pytest.raises(UriError, match=reason):
        parse_uri(text)


@pytest.mark.parametrize(
    "query",
    [
        "pin-value=ABCD",
        "pin-value=",
        "pin-value=AB CD",
        "pin-value=ABCD&pin-value=ABCD",
        "pin-value=AB&CD",
        "pin-value=AB%",
        "pin-source=ABCD",
    ],
)
def test_a_pin_is_refused_and_not_repeated(query: str) -> None:
    """Not even a part of it, where the person forgot to percent-encode: refusals are logged."""
    with pytest.raises(UriError) as caught:
        parse_uri(f"pkcs11:?{query}")
    assert "AB" not in str(caught.value)
    assert "CD" not in str(caught.value)


def test_unknown_query_attributes_choose_nothing_and_are_ignored() -> None:
    assert parse_uri("pkcs11:token=work?vendor-bbb=value-b") == Uri(token="work")


@pytest.mark.parametrize(
    ("uri", "matches"),
    [
        (Uri(), True),
        (Uri(token="work"), True),
        (Uri(token="Work"), False),
        (Uri(token=""), False),
        (Uri(serial="5001234"), True),
        (Uri(serial="5001235"), False),
        (Uri(model="PKCS#15 emulated"), True),
        (Uri(model="PKCS#15"), False),
        (Uri(manufacturer="Yubico (www.yubico.com)"), True),
        (Uri(manufacturer="Other"), False),
        (Uri(token="work", serial="5001234"), True),
        (Uri(token="work", serial="1"), False),
        (Uri(object="any key", key_id=b"\1"), True),
    ],
)
def test_which_tokens_are_meant(uri: Uri, matches: bool) -> None:
    assert uri.matches_token(YUBIKEY) is matches


@pytest.mark.parametrize(
    ("uri", "matches"),
    [
        (Uri(), True),
        (Uri(object="login"), True),
        (Uri(object="other"), False),
        (Uri(object=""), False),
        (Uri(key_id=b"\1"), True),
        (Uri(key_id=b"\2"), False),
        (Uri(key_id=b""), False),
        (Uri(object="login", key_id=b"\1"), True),
        (Uri(object="login", key_id=b"\2"), False),
        (Uri(token="another"), True),
    ],
)
def test_which_keys_are_meant(uri: Uri, matches: bool) -> None:
    assert uri.matches_key(Key("login").token_key()) is matches


def test_the_same_choice_is_about_tokens_and_keys_only() -> None:
    uri = parse_uri("pkcs11:token=work;id=%01?module-path=/a.so")
    assert uri.same_choice(parse_uri("pkcs11:id=%01;token=work?module-path=/b.so"))
    assert not uri.same_choice(parse_uri("pkcs11:token=work;id=%02?module-path=/a.so"))
