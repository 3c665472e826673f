"""What is wrong in a configuration, and in which line: all of it at once."""

from __future__ import annotations

import os
import time

import pytest
from doubles.unhurried import unhurried
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.key_rule import KeyRule
from replug.agent.config.keys import GLOBAL_KEYS
from replug.agent.config.model import Config
from replug.agent.config.reader import read_config
from replug.agent.config.tables import TABLES


def problems(text: str) -> list[str]:
    return [f"{problem.line}: {problem.message}" for problem in read_config(text).problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('touch_timeot = "1m"', "unknown key 'touch_timeot'; did you mean \"touch_timeout\"?"),
        ('touch-timeout = "1m"', "unknown key 'touch-timeout'; did you mean \"touch_timeout\"?"),
        ("[[tokens]]", "unknown key 'tokens'; did you mean \"token\"?"),
        ("zzz.yyy = 1", "unknown key 'zzz'"),
        ('comment = "a"', "comment is a key of a [[token]], not of the whole file"),
        ('[token]\nuri = "pkcs11:"', "token must be a list of tables: write [[token]] above each"),
        ("token = [1]", "token must be a list of tables: write [[token]] above each"),
        ("[touch_timeout]", 'touch_timeout must be a time in quotes, such as "30s"'),
        ("touch_timeout = 60", 'touch_timeout must be a time in quotes, such as "30s"'),
        ("touch_timeout = true", 'touch_timeout must be a time in quotes, such as "30s"'),
        ('touch_timeout = "soon"', "touch_timeout: not a duration: 'soon'"),
        ('touch_timeout = "never"', "touch_timeout: not a duration: 'never'"),
        ('touch_timeout = "-1"', "touch_timeout: not a duration: '-1'"),
        ('touch_timeout = "0"', "touch_timeout must not be zero"),
        ('touch_timeout = "0.5"', "touch_timeout must not be zero"),
        ('pin_idle_time = "0"', "pin_idle_time must not be zero"),
        ("pin_idle_time = 9", 'pin_idle_time must be a time in quotes, such as "30s" or "never"'),
        ("workers = 0", "workers must be a whole number from 1 to 64, without quotes"),
        ('workers = "2"', "workers must be a whole number from 1 to 64, without quotes"),
        ("workers = true", "workers must be a whole number from 1 to 64, without quotes"),
        ("workers = 65", "workers must be a whole number from 1 to 64, without quotes"),
        ("workers = 2.0", "workers must be a whole number from 1 to 64, without quotes"),
        (
            "touch_notification = 3",
            "touch_notification must be true, false or a time in quotes",
        ),
        ('touch_notification = "0"', "touch_notification must not be zero"),
        (
            'prompt = "gui"',
            'prompt must be "auto", "pinentry", "askpass", "terminal" or "systemd"',
        ),
        ('forget_pin_on = "removal"', "forget_pin_on must be a list: [...]"),
        ('forget_pin_on = ["lock"]', 'forget_pin_on must be "removal", "screen-lock" or "suspend"'),
        ('modules = ["opensc.so"]', "modules must be an absolute path or begin with ~/, not 'opensc.so'"),
        ("modules = [1]", "modules must be a path, a URI or auto in quotes"),
        ("modules = {}", "modules must be a list: [...]"),
        ('modules = ["pkcs11:tok=a"]', "modules: attribute tok is not supported"),
        ('modules = ["pkcs11:?pin-value=1234"]', "modules: a PIN is not taken from a URI: leave pin-value "),
        ('allowed_modules = "/opt/*,opensc"', "allowed_modules: 'opensc' matches no absolute path"),
        ('certificates = ["*-cert.pub"]', "certificates must be an absolute path or begin with ~/, not "),
        ('pinentry_program = ""', "pinentry_program must be the name or the path of a program"),
        ('pinentry_program = "bin/pinentry"', "pinentry_program must be an absolute path or begin with ~/"),
    ],
)
def test_the_whole_file(text: str, problem: str) -> None:
    (found,) = problems(f"\n# {text.splitlines()[0]}\n{text}\n")
    assert found.startswith(f"3: {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('urI = "a"', "unknown key 'urI'; did you mean \"uri\"?"),
        (
            'wait_for_token = "9"',
            "wait_for_token applies to the whole file: put it above the first [[token]] or [[key]]",
        ),
        ('module = "a.so"', "module must be an absolute path or begin with ~/, not 'a.so'"),
        ("confirm = 1", 'confirm must be true, false, "forwarded" or "other"'),
        ('confirm = "true"', 'confirm must be true, false, "forwarded" or "other"'),
        ('confirm = ["other", "login"]', 'confirm must be "forwarded" or "other"'),
        (
            'confirm_for = "10m"',
            "confirm_for applies to the whole file: put it above the first [[token]] or [[key]]",
        ),
        ('max_validity = "1h"', "max_validity is a key of a [[ca]]"),
        ('keys = "*"', "keys must be a list: [...]"),
        ('keys = [""]', "keys must not be empty"),
        ('keys = ["SHA256:short"]', "keys: not a fingerprint: ssh-add -l shows them"),
        ('keys = ["pkcs11:token=work"]', "keys: the URI does not choose a key: add id= or object="),
        ('keys = ["pkcs11:token=work;id=%01"]', "keys: the URI may have only id=, object= and type="),
        ('comment = "{lable}"', "comment: {lable} is not a field; the fields are {label}, {id}, {token}"),
        ('comment = "{label"', "comment: a single { is not allowed; write {{ for the character"),
        ('comment = "a\\nb"', "comment must be one line"),
        (
            'pin_source = "1234"',
            'pin_source must be "prompt", "file:/path" or "credential:NAME"; a PIN',
        ),
        ('pin_source = "file:pin"', 'pin_source: the path after "file:" must be absolute'),
        ('pin_time_to_live = "0"', "pin_time_to_live must not be zero"),
    ],
)
def test_a_token(text: str, problem: str) -> None:
    (found,) = problems(f'[[token]]\nuri = "pkcs11:token=work"\n{text}\n')
    assert found.startswith(f"3: {problem}")
    assert "1234" not in found


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ('""', "uri: does not begin with pkcs11:"),
        ("1", "uri must be a pkcs11: URI in quotes"),
        ('"pkcs11:id=%01"', "uri: the URI may only name a token"),
        ('"pkcs11:object=a"', "uri: the URI may only name a token"),
        ('"pkcs11:token=a;token=b"', "uri: token is given twice"),
        ('"pkcs11:?module-name=opensc"', "uri: module-name is not allowed here"),
    ],
)
def test_the_uri_of_a_token(uri: str, problem: str) -> None:
    (found,) = problems(f"[[token]]\nconfirm = true\nuri = {uri}\n")
    assert found.startswith(f"3: {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("match = []", "2: match must not be empty"),
        ('match = "pkcs11:id=%01"', "2: match: a URI chooses keys of one token only"),
        ('match = "*"\nhosts = "SHA256:short"', "3: hosts: not a fingerprint"),
        ('match = "*"\nhosts = ["!a", "!b*"]', "3: hosts: only says which hosts are left out"),
        ('match = "*"\nrepositories = "!a"', "3: repositories: only says which repositories are left out"),
        ('match = "*"\nrepositories = "/"', "3: repositories must be the path of a repository"),
        ('match = "~/.ssh/id_work"', "2: match: is a path: name keys by comment or fingerprint"),
        ('match = "*"\nrepositories = "git@host:a/b"', "3: repositories: is an address: name the path alone"),
        ('match = "*"\nrepositories = "ssh://host/b"', "3: repositories: is an address: name the path alone"),
        ('match = "*"\nhosts = "https://host"', "3: hosts must be a host's name alone"),
        ('match = "*"\nhosts = "!git@host"', "3: hosts must be a host's name alone"),
        ('match = "*"\nhosts = "*.host:22"', "3: hosts: a host on another port is named [*.host]:22"),
        ('match = "*"\nrestrict = true', "3: restrict: needs hosts: the keys would sign nothing"),
        ('hosts = "a"', '1: a [[key]] needs match, such as match = ["work*"]'),
        ('match = "*"\nusers = "a"', "3: users is a key of a [[certificate]]"),
    ],
)
def test_a_rule_for_keys(text: str, problem: str) -> None:
    (found,) = problems(f"[[key]]\n{text}\n")
    assert found.startswith(problem)


def test_several_rules_may_be_about_one_key() -> None:
    rule = '[[key]]\nmatch = "work*"\nhosts = "Server"\n'
    reading = read_config(rule * 2)
    assert reading.problems == []
    assert reading.config.key_rules == (KeyRule(("work*",), ("server",)),) * 2


def test_a_token_without_a_uri() -> None:
    text = 'workers = 1\n[[token]]\nuri = "pkcs11:token=a"\n\n[[token]]\nconfirm = true'
    assert problems(text) == ['5: a [[token]] needs a uri, such as uri = "pkcs11:token=work"']


def test_two_modules_for_one_token() -> None:
    text = '[[token]]\nuri = "pkcs11:token=a?module-path=/a.so"\nmodule = "/b.so"'
    assert problems(text) == ["3: module is not the module-path of uri"]


@pytest.mark.parametrize(
    ("earlier", "later", "hidden"),
    [
        ('uri = "pkcs11:token=a"', 'uri = "pkcs11:token=a"', True),
        ('uri = "pkcs11:"', 'uri = "pkcs11:token=a"', True),
        ('uri = "pkcs11:token=a"', 'uri = "pkcs11:serial=1;token=a"\nmodule = "/a.so"', True),
        ('uri = "pkcs11:token=a"', 'uri = "pkcs11:"', False),
        ('uri = "pkcs11:token=a"', 'uri = "pkcs11:token=b"', False),
        ('uri = "pkcs11:token=a"\nmodule = "/a.so"', 'uri = "pkcs11:token=a"', False),
        ('uri = "pkcs11:"\nmodule = "/a.so"', 'uri = "pkcs11:token=a"\nmodule = "/a.so"', True),
    ],
)
def test_a_token_that_never_holds(earlier: str, later: str, hidden: bool) -> None:
    text = f"\n[[token]]\n{earlier}\n[[token]]\n{later}"
    line = text.splitlines().index("[[token]]", 2) + 1
    expected = [f"{line}: this [[token]] never applies: the one in line 2 comes first"]
    assert problems(text) == (expected if hidden else [])


FINGERPRINT = f"SHA256:{'x' * 43}"
CA = f"""\
[[ca]]
key = "{FINGERPRINT}"
max_validity = "1h"
principals = ["root", "{{user}}@web"]
"""


def test_a_ca() -> None:
    reading = read_config(f'{CA}types = ["user"]\nrequired_options = ["source-address"]\nconfirm = true\n')
    assert reading.problems == []
    assert reading.config.cas == (
        CaEntry(
            FINGERPRINT,
            3600,
            ("root", "{user}@web"),
            types=("user",),
            extensions=(
                "permit-X11-forwarding",
                "permit-agent-forwarding",
                "permit-port-forwarding",
                "permit-pty",
                "permit-user-rc",
            ),
            required_options=("source-address",),
            confirm=True,
        ),
    )
    assert reading.config.ca(FINGERPRINT) == reading.config.cas[0]
    assert reading.config.ca(f"SHA256:{'y' * 43}") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('types = ["admin"]', 'types must be "user" or "host"'),
        ("types = []", 'types: allows no certificate: name "user", "host" or both'),
        ('types = ["user", "user"]', 'types: "user" is there twice'),
        ('extensions = ["force-command"]', "extensions: force-command is a critical option"),
        ('extensions = [""]', "extensions: not the name of an extension"),
        ('required_options = ["permit-pty"]', 'required_options must be "force-command", "source-address"'),
        ('confirm = "other"', "confirm must be true or false"),
        ('user = "a"', "unknown key 'user'"),
        ('uri = "pkcs11:"', "uri is a key of a [[token]]"),
        ('pin_idle_time = "1h"', "pin_idle_time applies to the whole file: put it above the first"),
    ],
)
def test_what_is_wrong_in_a_ca(text: str, problem: str) -> None:
    (found,) = problems(f"{CA}{text}\n")
    assert found.startswith(f"5: {problem}")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (FINGERPRINT, "SHA256:short", "2: key: not a fingerprint: ssh-add -l shows them"),
        (FINGERPRINT, "ca key", "2: key: not a fingerprint: ssh-add -l shows them"),
        ('"1h"', '"0"', "3: max_validity must not be zero"),
        ('"1h"', '"never"', "3: max_validity: not a duration: 'never'"),
        ('["root", "{user}@web"]', "[]", "4: principals: allows no certificate: name one"),
        (
            '["root", "{user}@web"]',
            '["*", "a"]',
            '4: principals: "*" allows every name: leave out the others',
        ),
        ('["root", "{user}@web"]', '["a", "a"]', '4: principals: "a" is there twice'),
        ('"root"', '""', '4: principals must not be empty; "*" allows every name'),
        ('"root"', '"web*"', '4: principals: "*" stands alone, for every name; there are no patterns'),
        ('"root"', '"{host}"', "4: principals: the only field in braces is {user}"),
        ('"root"', '"a\\nb"', "4: principals must be printable"),
    ],
)
def test_what_a_ca_needs(old: str, new: str, problem: str) -> None:
    (found,) = problems(CA.replace(old, new))
    assert found.startswith(problem)


def test_a_ca_without_anything() -> None:
    assert problems("[[ca]]") == [
        f'1: a [[ca]] needs key, such as key = "SHA256:{"A" * 43}"',
        '1: a [[ca]] needs max_validity, such as max_validity = "1h"',
        '1: a [[ca]] needs principals, such as principals = ["root", "{user}"]',
    ]


def test_one_key_has_one_ca() -> None:
    assert problems(f"{CA}{CA}") == ["5: this [[ca]] never applies: the one in line 1 comes first"]


def test_users_have_certificates_of_their_own() -> None:
    rule = f'[[certificate]]\nca = "SHA256:{"A" * 43}"\nhosts = "*"\nprincipals = "root"\n'
    for users in ('"alice"', '["alice", "@ssh-admins"]'):
        assert problems(f"{rule}users = {users}") == []
    wrong = 'users must be the name of a user of this machine, or of a group behind "@"'
    for name in ("", "@", "@@a", "a b", "a,b"):
        assert [line.partition(": ")[2] for line in problems(f'{rule}users = "{name}"')] == [wrong]
    assert problems(f'{rule}users = "alice"\nkey = "*"\ncertificate_file = "/a-cert.pub"') == [
        '6: key: must be "ephemeral" where users is given: they share no key',
        "7: certificate_file: is one file, and users have certificates of their own",
    ]


def test_what_a_host_certificate_never_has() -> None:
    assert problems(
        f'{CA}types = ["host"]\nrequired_options = ["source-address"]\nextensions = ["permit-pty"]'
    ) == [
        "4: principals: {user} is no name of a host",
        "6: required_options: never met: host certificates have no critical options",
        "7: extensions: never apply: host certificates have none",
    ]


def test_everything_is_said_at_once_in_the_order_of_the_lines() -> None:
    text = """\
workers = 0
prompt = "gui"
allowed_modules = [
  "/opt/*",
  1,  # one
  "opensc",
]
colour = "red"
[[token]]
confirm = "yes"
keys = ["*", [""], "SHA256:x"]
[[token]]
uri = "pkcs11:token=b"
touch_timeout = "1m"
"""
    found = problems(text)
    assert [problem.split()[:2] for problem in found] == [
        ["1:", "workers"],
        ["2:", "prompt"],
        ["5:", "allowed_modules"],
        ["6:", "allowed_modules:"],
        ["8:", "unknown"],
        ["9:", "a"],
        ["10:", "confirm"],
        ["11:", "keys"],
        ["11:", "keys:"],
        ["14:", "touch_timeout"],
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('\ntouch_timeout = "1m', "2: "),
        ('touch_timeout = "1m"\ntouch_timeout = "2m"\n', "2: "),
        ("a\n", "1: "),
        ('a = """\n\n', "3: "),
        ("a = [1\n\n\n", "4: "),
    ],
)
def test_what_is_no_toml(text: str, start: str) -> None:
    (found,) = problems(text)
    assert found.startswith(start)
    assert "(at " not in found


def test_a_list_without_a_bottom() -> None:
    (found,) = problems(f"modules = {'[' * 50_000}")
    assert found == "None: lists and tables are nested too deeply"


@pytest.mark.parametrize(
    ("table", "most"),
    [('[[token]]\nuri = "pkcs11:token={}"\n', 256), ("[[ca]]\n", 256), ("[[certificate]]\n", 64)],
)
def test_more_tables_than_are_compared(table: str, most: int) -> None:
    text = "".join(table.format(number) for number in range(most))
    assert "more than" not in " ".join(problems(text))
    (found,) = problems(text + table.format(most))
    line = most * table.count("\n") + 1
    assert found == f"{line}: there are more than {most} {table.split()[0]}"


@pytest.mark.parametrize("text", ["a{0} = 1\n", "touch_timout{0} = 1\n"])
def test_more_problems_than_anybody_reads(text: str) -> None:
    found = problems("".join(text.format(number) for number in range(1000)))
    assert len(found) == 101
    assert found[-1] == "101: this and what follows was not read"


def test_more_problems_in_one_list_than_anybody_reads() -> None:
    assert len(problems(f"modules = [{'1, ' * 1000}]")) == 101


@pytest.mark.parametrize(
    "text",
    [
        "a.{parts} = 1",
        "[a.{parts}]",
        "[[a.{parts}]]",
        "b = {{ a.{parts} = 1 }}",
        "a.{parts}",
        'x = """\n"""\n[a.{parts}]',
    ],
)
def test_a_key_of_many_parts(text: str) -> None:
    """What takes the square of their number is not begun."""
    (found,) = problems("\n" + text.format(parts=".".join("a" * 16)))
    assert found == f"{text.count(chr(10)) + 2}: a key has more than 16 parts"
    assert "parts" not in " ".join(problems("\n" + text.format(parts=".".join("a" * 15))))


_SIZE = 128 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * (_SIZE // 2),
        "".join(f"a{number} = 1\n" for number in range(_SIZE // 10)),
        "".join(f'[[token]]\nuri = "pkcs11:token={number}"\n' for number in range(_SIZE // 40)),
        "a" * _SIZE,
        f"modules = [{'1,' * (_SIZE // 2)}]",
        ("a." * 15 + " ") * (_SIZE // 31),
        f"[a{'.a' * 15}]\n" + "".join(f"{'b.' * 15}c{number} = 1\n" for number in range(_SIZE // 40)),
        '"' + '\\"' * (_SIZE // 2),
        '""" "' * (_SIZE // 5),
        "'" * _SIZE,
    ],
    ids=range(10),
)
def test_the_longest_files_are_read_in_time(text: str) -> None:
    """The agent waits eight seconds for one, on a slow board, too."""
    begun = time.thread_time()
    assert problems(text)
    assert time.thread_time() - begun < 4


def test_a_number_without_an_end() -> None:
    (found,) = problems(f"workers = {'9' * 5000}")
    assert "4300 digits" in found


@unhurried
@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read_config(text)


def test_problems_leave_nothing_half_read() -> None:
    assert read_config("workers = 0").config == Config()


KEYS = [*GLOBAL_KEYS, *(key for table in TABLES for key in table.keys)]
names = st.sampled_from([key.name for key in KEYS] + ["token", "ca", "colour", '"a b"'])
scalars = st.sampled_from(
    ['""', '"1h"', '"never"', "true", "0", "7", "1.5", "1979-05-27", '"pkcs11:token=a"', '"/a"', "nan"]
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        inner.map(lambda part: f"{{ uri = {part} }}"),
    ),
    max_leaves=4,
)
statements = st.one_of(
    st.tuples(names, values).map(" = ".join),
    st.sampled_from([f"[[{table.name}]]" for table in TABLES]),
    names.map(lambda name: f"[{name}]"),
)


@unhurried
@given(st.lists(statements, max_size=8).map("\n".join))
def test_nothing_in_a_file_is_too_odd_to_be_told_with_its_line(text: str) -> None:
    reading = read_config(text)
    lines = [problem.line for problem in reading.problems]
    assert all(line is not None and 1 <= line <= text.count("\n") + 1 for line in lines)
    assert lines == sorted(line for line in lines if line is not None)


def test_sockets_of_other_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("NOTHING", raising=False)
    text = 'upstreams = ["$XDG_RUNTIME_DIR/a", "${HOME}/b", "~/b", "/c"]'
    reading = read_config(text)
    assert (reading.problems, reading.config.upstreams) == ([], ("/run/user/7/a", "/home/me/b", "/c"))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert read_config(text).config.upstreams[0] == f"/run/user/{os.getuid()}/a"
    for wrong, why in {
        '["b"]': "must be an absolute path, or begin with ~/ or $XDG_RUNTIME_DIR/, not 'b'",
        '["$NOTHING/b"]': "the environment has no NOTHING",
        f'["/{"b" * 107}"]': "is longer than the 107 bytes of a socket's path",
        str([f"/{number}" for number in range(9)]): "may name 8 agents at most",
    }.items():
        [problem] = read_config(f"upstreams = {wrong}").problems
        assert problem.line == 1
        assert why in problem.message
