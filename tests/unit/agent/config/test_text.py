"""The configuration written out: what holds, the example, and that no document lacks a key."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from doubles.unhurried import unhurried
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.config.ca_entry import SSH_KEYGEN_EXTENSIONS, CaEntry
from replug.agent.config.certificate_rule import FIELDS as CERTIFICATE_FIELDS
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.comment_template import FIELDS
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.key_rule import KeyRule
from replug.agent.config.keys import GLOBAL_KEYS, Key
from replug.agent.config.kinds import quoted
from replug.agent.config.model import Config, PromptWay, TokenEntry
from replug.agent.config.reader import read_config
from replug.agent.config.socket_entry import SocketEntry
from replug.agent.config.tables import TABLES, default_of
from replug.agent.config.text import example, shown
from replug.token.names.pin_source import PinSource, SourceKind
from replug.token.names.uri import Uri
from replug.token.pins.lifetime import ForgetOn

DOCS = Path(__file__).parents[4] / "docs"
MAN_PAGE = DOCS / "replug.toml.5"
KEYS = [*GLOBAL_KEYS, *(key for table in TABLES for key in table.keys)]

some_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
path = some_text.filter(lambda text: "\0" not in text).map(lambda text: f"/{text}")
seconds = st.integers(1, 2**31 - 1)
maybe = st.one_of(st.none(), seconds)
forgets = st.frozensets(st.sampled_from(ForgetOn))
cases = [ConfirmWhen.NEVER, ConfirmWhen.FORWARDED, ConfirmWhen.OTHER]
confirmations = st.sampled_from([*cases, ConfirmWhen.FORWARDED | ConfirmWhen.OTHER, ConfirmWhen.ALWAYS])
entries = st.builds(
    TokenEntry,
    uri=st.builds(Uri, token=st.one_of(st.none(), some_text.filter(lambda text: "\0" not in text))),
    module=st.one_of(st.none(), path),
    pin_source=st.one_of(st.none(), st.builds(PinSource, st.just(SourceKind.FILE), path)),
    keys=st.lists(st.sampled_from(["*", "a?", "pkcs11:id=%01", f"SHA256:{'x' * 43}"])).map(tuple),
    confirm=st.one_of(st.none(), confirmations),
    comment=st.sampled_from(["", "{label} \\ {{}}", '"{id}"']),
    lifetime=st.one_of(st.just(0), maybe),
    pin_time_to_live=st.one_of(st.just(0), maybe),
    pin_idle_time=st.one_of(st.just(0), maybe),
    forget_pin_on=st.one_of(st.none(), forgets),
    workers=st.one_of(st.none(), st.integers(1, 64)),
)
cas = st.builds(
    CaEntry,
    key=st.just(f"SHA256:{'x' * 43}"),
    max_validity=seconds,
    principals=st.sampled_from([("*",), ("root", "{user}"), ('"a"\\',)]),
    types=st.sampled_from([("user",), ("user", "host")]),
    extensions=st.sampled_from([(), SSH_KEYGEN_EXTENSIONS, ("permit-pty", "a@example.com")]),
    required_options=st.sampled_from([(), ("source-address", "force-command")]),
    confirm=st.booleans(),
)
names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)
fingerprints = st.text("AZaz09+/", min_size=43, max_size=43).map(lambda text: f"SHA256:{text}")
hosts = st.one_of(
    fingerprints,
    names.map(str.lower),
    st.sampled_from(["*.example.com", "[a?]:22", "10.0.*"]),
)
rules = st.builds(
    CertificateRule,
    ca=st.lists(fingerprints, min_size=1).map(tuple),
    hosts=st.tuples(hosts, st.one_of(hosts, fingerprints.map("!{}".format))),
    principals=st.lists(st.one_of(names, st.sampled_from(["{user}", "a@{machine}"])), min_size=1).map(tuple),
    lifetime=st.integers(2, 2**31 - 1),
    users=st.just(()),
    key=st.one_of(st.just(("ephemeral",)), st.lists(names, min_size=1).map(tuple)),
    extensions=st.sets(names).map(sorted).map(tuple),
    force_command=some_text.filter(lambda text: "\0" not in text),
    source_address=st.sampled_from(["", "10.0.0.0/24", "192.0.2.7,2001:db8::/32"]),
    key_id=st.sampled_from(["{user}@{machine}", "x"]),
    renew_before=st.sampled_from([None, 0, 1]),
    certificate_file=st.one_of(st.just(""), path.map(lambda path: f"{path}-cert.pub")),
)
rules_for_others = st.builds(
    lambda rule, users: replace(rule, users=users, key=("ephemeral",), certificate_file=""),
    rules,
    st.lists(st.one_of(names, names.map("@{}".format)), min_size=1).map(tuple),
)
key_rules = st.builds(
    KeyRule,
    match=st.lists(st.one_of(fingerprints, names, st.just("a* ?")), min_size=1).map(tuple),
    hosts=st.one_of(st.just(()), st.tuples(hosts, fingerprints.map("!{}".format))),
    repositories=st.sampled_from([(), ("work-org/*", "!/work-org/dots")]),
    restrict=st.booleans(),
    confirm=confirmations,
    confirm_for=st.one_of(st.none(), st.just(0), seconds),
).map(lambda rule: replace(rule, restrict=rule.restrict and bool(rule.hosts)))
sockets = st.builds(
    SocketEntry,
    path=st.sampled_from(["/run/a.sock", "/a b/\u00e4", f"/{'x' * 106}"]),
    keys=st.lists(st.one_of(fingerprints, names, st.just("a* ?")), min_size=1).map(tuple),
    confirm=confirmations,
    hosts=st.one_of(st.just(()), st.tuples(hosts, fingerprints.map("!{}".format))),
)
configs = st.builds(
    Config,
    modules=st.lists(st.one_of(path, st.sampled_from(["auto", "pkcs11:token=a"]))).map(tuple),
    allowed_modules=st.sampled_from(["", "/opt/*", "/a*,!/b?,", '*"', "/usr/lib*/*,/usr/local/lib*/*"]),
    certificates=st.lists(path).map(tuple),
    default_lifetime=st.one_of(st.just(0), seconds),
    confirm=confirmations,
    confirm_for=st.one_of(st.just(0), seconds),
    confirm_for_forwarded=st.one_of(st.just(0), seconds),
    wait_for_token=st.one_of(st.just(0), seconds),
    pin_time_to_live=maybe,
    pin_idle_time=maybe,
    forget_pin_on=forgets,
    prompt=st.sampled_from(["auto", "pinentry", "askpass", "terminal", "systemd"]),
    pinentry_program=st.one_of(path, st.just("pinentry-gtk-2"), st.none()),
    touch_notification=maybe,
    workers=st.integers(1, 64),
    # One is enough: several might hide each other.
    tokens=st.lists(entries, max_size=1).map(tuple),
    key_rules=st.lists(key_rules, max_size=2).map(tuple),
    cas=st.lists(cas, max_size=1).map(tuple),
    certificate_rules=st.tuples(
        st.lists(rules, max_size=2, unique_by=lambda rule: rule.certificate_file).map(tuple),
        st.lists(rules_for_others, max_size=1).map(tuple),
    ).map(lambda both: both[0] + both[1]),
    sockets=st.lists(sockets, max_size=2, unique_by=lambda socket: socket.path).map(tuple),
)


@unhurried
@given(configs)
def test_what_is_shown_is_what_holds(config: Config) -> None:
    reading = read_config("\n".join(shown(config)))
    assert reading.problems == []
    assert reading.config == config


@unhurried
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_written(text: str) -> None:
    assert tomllib.loads(f"a = {quoted(text)}") == {"a": text}


def test_what_is_not_set_is_marked() -> None:
    config = read_config(
        'workers = 2\npin_idle_time = "1h"\n[[token]]\nuri = "pkcs11:token=a"\nconfirm = true\n'
        'pin_time_to_live = "never"\n'
    ).config
    lines = list(shown(config))
    assert "workers = 2" in lines
    assert 'touch_timeout = "45s"  # default' in lines
    assert lines[lines.index("[[token]]") :] == [
        "[[token]]",
        'uri = "pkcs11:token=a"',
        "# module is not set",
        'pin_source = "prompt"  # default',
        'keys = ["*"]  # default',
        "confirm = true",
        'comment = "{label}"  # default',
        '# lifetime = "never"  # as above',
        'pin_time_to_live = "never"',
        '# pin_idle_time = "1h"  # as above',
        "# forget_pin_on = []  # as above",
        "# workers = 2  # as above",
    ]


# The table, and the documents that repeat it.


def test_every_field_has_a_key_and_every_key_a_field() -> None:
    tables = {table.field for table in TABLES}
    assert {key.name for key in GLOBAL_KEYS} | tables == set(Config.__dataclass_fields__)
    for table in TABLES:
        assert {key.name for key in table.keys} == set(table.entry.__dataclass_fields__)
    assert all(key.inherits in {above.name for above in GLOBAL_KEYS} for key in KEYS if key.inherits)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_default_is_a_value(key: Key) -> None:
    value = tomllib.loads(f"a = {key.sample or default_of(key)}")["a"]
    key.kind.read(value)


def test_the_example_is_the_programs() -> None:
    assert (DOCS / "replug.toml.example").read_text() == example()


def test_the_example_changes_nothing() -> None:
    assert read_config(example()).config == Config()
    assert tomllib.loads(example()) == {}


def test_all_of_the_example_can_be_uncommented() -> None:
    text = re.sub(r"^#(?=\S)", "", example(), flags=re.MULTILINE)
    reading = read_config(text)
    assert reading.problems == []
    values = tomllib.loads(text)
    for table in TABLES:
        (entry,) = values.pop(table.name)
        assert list(entry) == [key.name for key in table.keys]
    assert list(values) == [key.name for key in GLOBAL_KEYS]
    # What is the default in it is the default.
    (entry,), (ca,) = reading.config.tokens, reading.config.cas
    settings = {name: getattr(reading.config, name) for name in values}
    assert Config(**settings) == Config()
    assert Config(tokens=(entry,)).settings(entry).keys == Config().settings(None).keys
    assert ca == CaEntry(ca.key, ca.max_validity, ca.principals)


def test_the_man_page_has_every_key_with_its_default() -> None:
    headings = r"^\.Sh (?:TOKENS|KEYS AND HOSTS|CERTIFICATE AUTHORITIES|CERTIFICATES|SOCKETS|FILES)$"
    whole_file, *tables = re.split(headings, MAN_PAGE.read_text(), flags=re.MULTILINE)
    of_keys = [GLOBAL_KEYS, *(table.keys for table in TABLES)]
    for part, keys in zip([whole_file, *tables[:-1]], of_keys, strict=True):
        found = re.findall(r"^\.It Ic (\w+) = (?:Ar [A-Z]+|(.*))$", part, flags=re.MULTILINE)
        assert [(name, default.replace(r"\(dq", '"')) for name, default in found] == [
            (key.name, default_of(key)) for key in keys
        ]


def test_the_man_page_says_what_needs_a_restart() -> None:
    found = re.findall(r"^\.It Ic (\w+) = .*\n\.Pq restart$", MAN_PAGE.read_text(), flags=re.MULTILINE)
    assert found == [key.name for key in KEYS if key.needs_restart]


def test_the_man_page_names_every_word() -> None:
    text = MAN_PAGE.read_text().replace(r"\(dq", '"')
    words = [*get_args(PromptWay), *ForgetOn, *(f"{{{field}}}" for field in (*FIELDS, *CERTIFICATE_FIELDS))]
    assert [word for word in words if f'"{word}"' not in text and word not in text] == []


def test_the_examples_of_the_man_page_are_some() -> None:
    examples = re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", MAN_PAGE.read_text(), flags=re.MULTILINE)
    readings = [read_config(example) for example in examples]
    assert [reading.problems for reading in readings] == [[]] * len(readings)
    assert len(readings[-1].config.tokens) == 2


def test_the_man_page_is_well_made() -> None:
    done = subprocess.run(["mandoc", "-T", "lint", MAN_PAGE], capture_output=True, text=True, check=False)
    # Whether the pages it refers to are installed is not its fault.
    found = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if "referenced manual not found" not in line and "mandoc.db" not in line
    ]
    assert found == []
