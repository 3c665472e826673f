"""What the configuration means: values, tokens, and what the command line overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.model import Config, TokenEntry, TokenSettings
from replug.agent.config.options import Options
from replug.agent.config.reader import read_config
from replug.token.identity import TokenId
from replug.token.names.pin_source import PinSource, SourceKind
from replug.token.names.uri import Uri
from replug.token.pins.lifetime import ForgetOn
from replug.token.worker.client import Deadlines

WORK = TokenId("Yubico", "YubiKey", "5001234", "work")
HOME = TokenId("Yubico", "YubiKey", "7", "home")
MODULE = "/usr/lib/opensc-pkcs11.so"


def config(text: str) -> Config:
    reading = read_config(text)
    assert reading.problems == []
    return reading.config


EVERYTHING = """
modules = ["auto", "/opt/hsm.so", "pkcs11:token=backup"]
allowed_modules = ["/opt/*", "!/opt/bad*"]
certificates = ["~/.ssh/*-cert.pub", "/etc/replug/a-cert.pub"]
default_lifetime = "8h"
wait_for_token = "2m"
pin_time_to_live = "8h"
pin_idle_time = "1h30m"
forget_pin_on = ["removal", "screen-lock", "suspend"]
prompt = "pinentry"
pinentry_program = "~/bin/pinentry-mine"
prompt_timeout = "1h"
confirm = "forwarded"
confirm_for = "10m"
confirm_for_forwarded = "30s"
touch_notification = "3s"
operation_timeout = "5s"
touch_timeout = "1m"
keypad_timeout = "90"
workers = 2

[[token]]
uri = "pkcs11:token=work;serial=5001234"
module = "~/opensc.so"
pin_source = "file:~/pin"
keys = ["pkcs11:id=%01", "SHA256:g7tBF9d8CF1CV0j35KFgW45iy1Feaj6mEUJe7r6c7gk", "login*"]
confirm = true
comment = "{label} on {token}"
lifetime = "1w"
pin_time_to_live = "never"
pin_idle_time = "5m"
forget_pin_on = []
workers = 4
"""


def test_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/you")
    assert config(EVERYTHING) == Config(
        modules=("auto", "/opt/hsm.so", "pkcs11:token=backup"),
        allowed_modules="/opt/*,!/opt/bad*",
        certificates=("/home/you/.ssh/*-cert.pub", "/etc/replug/a-cert.pub"),
        default_lifetime=28800,
        wait_for_token=120,
        pin_time_to_live=28800,
        pin_idle_time=5400,
        forget_pin_on=frozenset(ForgetOn),
        prompt="pinentry",
        pinentry_program="/home/you/bin/pinentry-mine",
        prompt_timeout=3600,
        confirm=ConfirmWhen.FORWARDED,
        confirm_for=600,
        confirm_for_forwarded=30,
        touch_notification=3,
        operation_timeout=5,
        touch_timeout=60,
        keypad_timeout=90,
        workers=2,
        tokens=(
            TokenEntry(
                Uri(token="work", serial="5001234"),
                module="/home/you/opensc.so",
                pin_source=PinSource(SourceKind.FILE, "/home/you/pin"),
                keys=("pkcs11:id=%01", "SHA256:g7tBF9d8CF1CV0j35KFgW45iy1Feaj6mEUJe7r6c7gk", "login*"),
                confirm=ConfirmWhen.ALWAYS,
                comment="{label} on {token}",
                lifetime=604800,
                pin_time_to_live=0,
                pin_idle_time=300,
                forget_pin_on=frozenset(),
                workers=4,
            ),
        ),
    )
    assert config(EVERYTHING).deadlines == Deadlines(operation=5, touch=60, keypad=90)


@pytest.mark.parametrize("text", ["", "# nothing\n", "token = []"])
def test_all_of_it_is_optional(text: str) -> None:
    assert config(text) == Config()
    assert Config().deadlines == Deadlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('modules = "/opt/a.so"', Config(modules=("/opt/a.so",))),
        ("modules = []", Config(modules=())),
        ('allowed_modules = "/opt/*,!/opt/b*"', Config(allowed_modules="/opt/*,!/opt/b*")),
        ('allowed_modules = ""', Config(allowed_modules="")),
        ("allowed_modules = []", Config(allowed_modules="")),
        ('default_lifetime = "never"', Config(default_lifetime=0)),
        ('default_lifetime = "0"', Config(default_lifetime=0)),
        ('wait_for_token = "0"', Config(wait_for_token=0)),
        ('pin_idle_time = "never"', Config(pin_idle_time=None)),
        ("confirm = false", Config()),
        ("confirm = true", Config(confirm=ConfirmWhen.ALWAYS)),
        ("confirm = []", Config()),
        ('confirm = ["other", "forwarded"]', Config(confirm=ConfirmWhen.OTHER | ConfirmWhen.FORWARDED)),
        ("touch_notification = false", Config(touch_notification=None)),
        ("touch_notification = true", Config(touch_notification=1.0)),
        ('pinentry_program = "pinentry-curses"', Config(pinentry_program="pinentry-curses")),
        ('pinentry_program = "auto"', Config()),
        ('[[token]]\nuri = "pkcs11:"', Config(tokens=(TokenEntry(Uri()),))),
        (
            '[[token]]\nuri = "pkcs11:token=a?module-path=/opt/a.so"',
            Config(tokens=(TokenEntry(Uri(token="a"), module="/opt/a.so"),)),
        ),
    ],
)
def test_other_ways_to_say_it(text: str, expected: Config) -> None:
    assert config(text) == expected


# Tokens.


def test_the_first_entry_that_matches_holds_and_the_rest_of_the_file_fills_it_up() -> None:
    of = config(
        'confirm = "other"\n'
        'pin_time_to_live = "8h"\npin_idle_time = "1h"\nforget_pin_on = ["suspend"]\nworkers = 2\n'
        '[[token]]\nuri = "pkcs11:token=work"\npin_time_to_live = "never"\nconfirm = true\n'
        '[[token]]\nuri = "pkcs11:manufacturer=Yubico"\nforget_pin_on = []\nworkers = 1\nlifetime = "never"\n'
    )
    assert of.for_token(WORK, MODULE) == TokenSettings(
        workers=2,
        pin_source=None,
        pin_time_to_live=None,
        pin_idle_time=3600,
        forget_pin_on=frozenset({ForgetOn.SUSPEND}),
        keys=("*",),
        confirm=ConfirmWhen.ALWAYS,
        comment="{label}",
        lifetime=None,
    )
    assert of.for_token(HOME, MODULE) == TokenSettings(
        workers=1,
        pin_source=None,
        pin_time_to_live=28800,
        pin_idle_time=3600,
        forget_pin_on=frozenset(),
        keys=("*",),
        confirm=ConfirmWhen.OTHER,
        comment="{label}",
        lifetime=0,
    )
    elsewhere = TokenId("SoftHSM project", "SoftHSM v2", "1", "work2")
    assert of.for_token(elsewhere, MODULE) == of.settings(None)
    assert of.settings(None).forget_pin_on == {ForgetOn.SUSPEND}


def test_without_a_file_all_tokens_are_alike() -> None:
    settings = Config().for_token(WORK, MODULE)
    assert settings == Config().for_token(HOME, MODULE)
    assert (settings.keys, settings.confirm, settings.pin_source) == (("*",), ConfirmWhen.NEVER, None)


def test_an_entry_with_a_module_holds_for_no_other(tmp_path: Path) -> None:
    module = tmp_path / "opensc.so.1"
    module.touch()
    link = tmp_path / "opensc.so"
    link.symlink_to(module)
    of = config(
        f'[[token]]\nuri = "pkcs11:token=work"\nmodule = "{link}"\nconfirm = true\n'
        '[[token]]\nuri = "pkcs11:token=work"\ncomment = "other"\n'
    )
    assert of.for_token(WORK, str(module)).confirm
    assert of.for_token(WORK, str(link)).confirm
    assert of.for_token(WORK, "/usr/lib/libykcs11.so").comment == "other"


def test_what_is_served_at_the_start() -> None:
    assert Config().providers() == ("auto",)
    of = config(
        'modules = ["/opt/a.so"]\n'
        '[[token]]\nuri = "pkcs11:token=w%20rk"\nmodule = "/opt/b c.so"\n'
        '[[token]]\nuri = "pkcs11:token=home"\n'
    )
    assert of.providers() == ("/opt/a.so", "pkcs11:token=w%20rk?module-path=/opt/b%20c.so")


# The command line and the file.


def test_the_command_line_wins() -> None:
    from replug.agent.process.arguments import parse

    of = config('default_lifetime = "1h"\nallowed_modules = "/opt/*"')
    silent = parse([], shell=None).options.with_config(of)
    assert (silent.default_lifetime, silent.provider_patterns) == (3600, "/opt/*")
    told = parse(["-t", "0", "-P", ""], shell=None).options.with_config(of)
    assert (told.default_lifetime, told.provider_patterns) == (0, "")
    assert told.config == of


def test_a_file_that_is_read_again_takes_back_what_it_said() -> None:
    first = Options().with_config(config('default_lifetime = "1h"\nallowed_modules = "/opt/*"'))
    assert first.with_config(Config()) == Options()
