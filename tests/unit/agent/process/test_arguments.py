"""The command line's meaning."""

from __future__ import annotations

import pytest

from replug.agent.config.options import Options
from replug.agent.process.arguments import ArgumentError, Arguments, UsageError
from replug.agent.process.arguments import parse as parse_for_shell


def parse(*arguments: str, shell: str | None = "/bin/sh") -> Arguments:
    return parse_for_shell(arguments, shell=shell)


def test_without_arguments() -> None:
    assert parse() == Arguments(
        action="serve",
        options=Options(
            default_lifetime=0,
            provider_patterns="/usr/lib*/*,/usr/local/lib*/*",
            allow_remote_pkcs11=False,
            restrict_websafe=True,
            websafe_allow="ssh:*",
            fingerprint_hash="sha256",
            debug=False,
            socket_activated=False,
        ),
        command=(),
        csh=False,
        foreground=False,
        bind_address=None,
        in_temporary_folder=False,
        socket_folder=None,
        skip_cleaning=False,
        clean_any_host=False,
    )


def test_values() -> None:
    options = parse(
        *("-t", "1h30m", "-P", "/opt/*", "-E", "MD5", "-O", "websafe-allow=ssh:a,ssh:b"),
        *("-O", "no-restrict-websafe", "-Oallow-remote-pkcs11", "-d"),
    ).options
    assert options == Options(
        default_lifetime=5400,
        provider_patterns="/opt/*",
        allow_remote_pkcs11=True,
        restrict_websafe=False,
        websafe_allow="ssh:a,ssh:b",
        fingerprint_hash="md5",
        debug=True,
    )


def test_empty_lists_replace_the_defaults() -> None:
    options = parse("-P", "", "-O", "websafe-allow=").options
    assert (options.provider_patterns, options.websafe_allow) == ("", "")


def test_the_last_of_several_values_counts() -> None:
    arguments = parse("-t", "1", "-t", "2", "-a", "x", "-ay", "-E", "md5", "-E", "sha256")
    assert arguments.options.default_lifetime == 2
    assert arguments.bind_address == "y"
    assert arguments.options.fingerprint_hash == "sha256"


def test_socket_flags() -> None:
    arguments = parse("-TU")
    assert arguments.in_temporary_folder
    assert arguments.skip_cleaning


@pytest.mark.parametrize(
    ("flags", "action", "any_host"),
    [
        (["-V"], "version", False),
        (["--version"], "version", False),
        (["-k"], "kill", False),
        (["-k", "-u"], "kill", False),
        (["-u"], "clean", False),
        (["-uu"], "clean", True),
        (["-u", "-u"], "clean", True),
        (["-U"], "serve", False),
    ],
)
def test_actions(flags: list[str], action: str, any_host: bool) -> None:
    arguments = parse(*flags)
    assert (arguments.action, arguments.clean_any_host) == (action, any_host)


@pytest.mark.parametrize(
    ("flags", "shell", "csh"),
    [
        ([], "/bin/csh", True),
        ([], "/usr/local/bin/tcsh", True),
        ([], "/bin/sh", False),
        ([], "/bin/csh2", False),
        ([], "", False),
        ([], None, False),
        (["-s"], "/bin/csh", False),
        (["-c"], "/bin/sh", True),
        (["-c"], None, True),
        (["-k"], "/bin/csh", True),
        (["-D"], "/bin/csh", True),
        (["true"], "/bin/csh", False),
    ],
)
def test_the_kind_of_shell(flags: list[str], shell: str | None, csh: bool) -> None:
    assert parse(*flags, shell=shell).csh is csh


def test_a_commands_own_options_are_not_the_agents() -> None:
    arguments = parse("-t", "5", "prog", "-s", "-k", "--", "-V")
    assert arguments.command == ("prog", "-s", "-k", "--", "-V")
    assert arguments.action == "serve"
    assert parse("--", "-c").command == ("-c",)
    assert parse("-").command == ("-",)


@pytest.mark.parametrize(
    "flags",
    [
        ["-c", "-s"],
        ["-sc"],
        ["-d", "-D"],
        ["-dd"],
        ["-DD"],
        ["-T", "-ax"],
        ["-T", "-A", "user:x"],
        ["-A", "user:x", "-ax"],
    ]
    + [[flag, "true"] for flag in ("-c", "-k", "-s", "-d", "-D", "-u")],
)
def test_what_does_not_go_together(flags: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^$"):
        parse(*flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-x"], "unknown option -- x"),
        (["-h"], "unknown option -- h"),
        (["--help"], ""),
        (["--helpless"], "unknown option -- helpless"),
        (["-t"], "option requires an argument -- t"),
        (["-Da"], "option requires an argument -- a"),
        (["-t", "soon"], "Invalid lifetime"),
        (["-t", ""], "Invalid lifetime"),
        (["-t", "2147483648"], "Invalid lifetime"),
        (["-t", "never", "-t", "1"], "Invalid lifetime"),
    ],
)
def test_misused_options(flags: list[str], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(*flags)
    assert str(raised.value) == words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-E", "sha3"], 'Invalid hash algorithm "sha3"'),
        (["-E", "sha3", "-E", "md5"], 'Invalid hash algorithm "sha3"'),
        (["-O", "fly"], 'Unknown -O option "fly"'),
        (["-O", "allow-remote-pkcs11=yes"], 'Unknown -O option "allow-remote-pkcs11=yes"'),
        (["-P", "a", "-P", "a"], "-P option already specified"),
        (["-O", "websafe-allow=a", "-O", "websafe-allow=a"], "websafe-allow already set"),
    ],
)
def test_values_that_cannot_be(flags: list[str], words: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        parse(*flags)
    assert str(raised.value) == words
