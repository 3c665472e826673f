"""The modules that p11-kit has registered, by its rules (pkcs11.conf(5), conf.c and modules.c of p11-kit)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replug.token.names import p11kit
from replug.token.names.load_arguments import PLAIN, LoadArguments
from replug.token.names.p11kit import Registry, Why, read_registry
from replug.token.names.p11kit_files import FileError, P11KitFiles, _read_fields


class Machine:
    """A machine with modules, and what p11-kit is told about them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = root / "usr/lib/pkcs11"
        self.modules.mkdir(parents=True)
        self.packages = root / "usr/share/p11-kit/modules"
        self.system = root / "etc/pkcs11/modules"
        self.user = root / "home/.config/pkcs11/modules"

    def install(self, name: str) -> str:
        """Installs a module; its path."""
        path = self.modules / name
        path.touch()
        return str(path)

    def register(self, name: str, *lines: str, folder: Path | None = None) -> Path:
        """Writes a module file, a package's unless another folder is given."""
        path = (folder or self.packages) / f"{name}.module"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    def configure(self, folder: Path, text: str) -> None:
        """Writes pkcs11.conf, the user's or the machine's, beside a folder of module files."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        (folder.parent / "pkcs11.conf").write_text(text)

    def read(self, user_id: int = 1000, **environment: str) -> Registry:
        home = str(self.root / "home")
        return read_registry(P11KitFiles.of({"HOME": home, **environment}, user_id, self.root))

    def names(self, user_id: int = 1000, **environment: str) -> list[str]:
        return [one.name for one in self.read(user_id, **environment).modules]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(p11kit, "_MODULE_FOLDERS", (str(machine.modules),))
    for name in ("a.so", "b.so", "c.so"):
        machine.install(name)
    return machine


def test_nothing_is_registered(machine: Machine) -> None:
    assert machine.read() == Registry((), ())
    assert machine.read().empty


def test_a_path_is_absolute_or_in_the_folder_of_modules(machine: Machine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.so"
    elsewhere.touch()
    machine.register("relative", "# a comment", "", "  module :\ta.so  ")
    machine.register("absolute", f"module: {elsewhere}")
    assert {one.name: one.source.path for one in machine.read().modules} == {
        "relative": str(machine.modules / "a.so"),
        "absolute": str(elsewhere),
    }
    assert {one.source.arguments for one in machine.read().modules} == {PLAIN}


def test_priority_and_then_the_name_is_the_order(machine: Machine) -> None:
    machine.register("one", "module: a.so")
    machine.register("two", "module: b.so", "priority: 5 or so")
    machine.register("another", "module: c.so", "priority: none")
    assert machine.names() == ["two", "another", "one"]


def test_one_module_of_two_files_is_one(machine: Machine) -> None:
    (machine.modules / "link.so").symlink_to("a.so")
    machine.register("first", "module: a.so", "priority: 1")
    machine.register("second", "module: link.so", "x-init-reserved: ignored")
    assert machine.names() == ["first"]


# Whose files count.


def test_the_users_fields_come_before_the_machines_and_the_packages(machine: Machine) -> None:
    machine.register("one", "module: a.so", "priority: 1", "critical: yes")
    machine.register("one", "priority: 2", folder=machine.system)
    machine.register("one", "module: b.so", folder=machine.user)
    machine.register("two", "module: c.so", "priority: 2")
    [one, two] = machine.read().modules
    assert (one.name, two.name) == ("one", "two")
    assert (one.source.path, one.critical) == (str(machine.modules / "b.so"), True)
    assert one.file == str(machine.user / "one.module")


def test_a_blank_module_in_the_users_file_switches_it_off(machine: Machine) -> None:
    machine.register("one", "module: a.so")
    machine.register("one", "module:", folder=machine.user)
    assert machine.names() == []
    [left_out] = machine.read().left_out
    assert (left_out.name, left_out.why) == ("one", Why.DISABLED)
    assert not machine.read().empty


@pytest.mark.parametrize(
    ("system", "user", "names"),
    [
        ("", "", ["package", "system", "user"]),
        ("user-config: merge", "", ["package", "system", "user"]),
        ("user-config: none", "user-config: merge", ["package", "system"]),
        ("user-config: only", "", ["user"]),
        ("user-config: override", "", ["user"]),
        ("user-config: only", "user-config: merge", ["package", "system", "user"]),
        ("", "user-config: only", ["user"]),
        ("", "user-config: none", ["package", "system"]),
    ],
)
def test_the_mode_says_whose_files_count(machine: Machine, system: str, user: str, names: list[str]) -> None:
    machine.register("package", "module: a.so")
    machine.register("system", "module: b.so", folder=machine.system)
    machine.register("user", "module: c.so", folder=machine.user)
    machine.configure(machine.system, system)
    machine.configure(machine.user, user)
    assert machine.names() == names


def test_roots_own_files_are_not_read(machine: Machine) -> None:
    machine.register("user", "module: a.so", folder=machine.user)
    assert machine.names() == ["user"]
    assert machine.names(user_id=0) == []
    assert machine.names(P11_KIT_NO_USER_CONFIG="1") == []
    assert machine.names(XDG_CONFIG_HOME="/nowhere") == []
    assert machine.names(XDG_CONFIG_HOME=str(machine.root / "home/.config")) == ["user"]


# Which programs it is for.


@pytest.mark.parametrize(
    ("line", "loaded"),
    [
        ("disable-in: replug-agent", False),
        ("disable-in: firefox, replug-agent,seahorse", False),
        ("disable-in: replug-agent2 my-replug-agent", True),
        ("disable-in: p11-kit-proxy", True),
        ("enable-in: replug-agent", True),
        ("enable-in: ssh replug-agent", True),
        ("enable-in: ssh", False),
        ("enable-in: p11-kit-proxy", False),
    ],
)
def test_programs_are_named(machine: Machine, line: str, loaded: bool) -> None:
    path = machine.register("one", "module: a.so", line)
    assert machine.names() == (["one"] if loaded else [])
    if not loaded:
        [left_out] = machine.read().left_out
        assert left_out.why is Why.DISABLED
        assert left_out.reason == f"{path}: its {line.split(':')[0]} leaves out replug-agent"


@pytest.mark.parametrize(
    "lines",
    [("module: p11-kit-trust.so",), ("module: a.so", "trust-policy: yes"), ("module: p11-kit-proxy.so",)],
)
def test_what_has_no_keys_is_left_out(machine: Machine, lines: tuple[str, ...]) -> None:
    machine.register("one", *lines)
    assert [one.why for one in machine.read().left_out] == [Why.NO_KEYS]
    assert machine.names() == []
    assert machine.read().empty


# Other ways to load it.


def test_what_the_module_reads_itself(machine: Machine) -> None:
    machine.register("nss", "module: a.so", "x-init-reserved: configDir='sql:/db' flags=readOnly")
    [one] = machine.read().modules
    assert one.source.arguments == LoadArguments(init_reserved="configDir='sql:/db' flags=readOnly")
    assert machine.read().source_of(str(machine.modules / "a.so")) == one.source
    assert machine.read().source_of("/other.so").arguments == PLAIN


def test_remote_modules_are_reached_by_p11_kits_client(machine: Machine) -> None:
    client = machine.install("p11-kit-client.so")
    machine.register("far", "remote: unix:path=/run/far")
    machine.register("farther", "remote: |ssh user@host p11-kit remote /usr/lib/module.so", "module: a.so")
    machine.register("virtual", "remote: vsock:cid=2;port=7")
    machine.register("newer", "module: p11-kit-client.so", "server-address: unix:path=/run/newer")
    machine.register("other", "module: a.so", "server-address: unix:path=/run/newer")
    found = {one.name: one.source for one in machine.read().modules}
    assert {name: source.arguments.server_address for name, source in found.items()} == {
        "far": "unix:path=/run/far",
        "farther": "|ssh user@host p11-kit remote /usr/lib/module.so",
        "newer": "unix:path=/run/newer",
        "other": "",
        "virtual": "vsock:cid=2;port=7",
    }
    assert {found[name].path for name in ("far", "farther", "newer", "virtual")} == {client}
    # The client by its path alone is none of them.
    assert machine.read().source_of(client).arguments == PLAIN


def test_remote_modules_that_are_refused(machine: Machine) -> None:
    far = machine.register("far", "remote: unix:path=/run/far")
    assert [one.reason for one in machine.read().left_out] == [
        f"{far}: p11-kit-client.so, which reaches remote modules, is not installed"
    ]
    machine.install("p11-kit-client.so")
    far.unlink()
    odd = machine.register("odd", "remote: tcp:host")
    mine = machine.register("mine", "remote: |cat", folder=machine.user)
    machine.register("theirs", "module: a.so")
    machine.register("theirs", "remote: |cat", folder=machine.user)
    # p11-kit's client takes a command here as well.
    client = "module: p11-kit-client.so"
    machine.register("address", client, "server-address: |cat", folder=machine.user)
    machine.register("mixed", client)
    machine.register("mixed", "server-address: |cat", folder=machine.user)
    assert machine.names() == []
    reasons = {one.name: one.reason for one in machine.read().left_out}
    assert reasons["odd"] == (
        f"{odd}: remote: tcp:host is none of |COMMAND, unix:path=/SOCKET and vsock:ADDRESS"
    )
    assert reasons["mine"] == (
        f"{mine}: remote: |cat would run a program that no list of allowed modules covers"
    )
    assert all("would run a program" in reasons[name] for name in ("theirs", "address", "mixed"))
    # Root may register one, and the user choose another order.
    machine.register("mine", "remote: |cat")
    machine.register("mine", "priority: 3", folder=machine.user)
    assert machine.names() == ["mine"]


# What is wrong.


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("module: a.so\nno colon", ":2: not a line NAME: VALUE"),
        ("[section]", ":1: not a line NAME: VALUE"),
        ("-----BEGIN CERTIFICATE-----: x", ":1: not a line NAME: VALUE"),
        ("x" * 70_000, " is longer than 65536 bytes"),
        ("module: nowhere.so", ": nowhere.so is not installed"),
    ],
)
def test_one_file_that_is_wrong_keeps_no_other_out(machine: Machine, text: str, reason: str) -> None:
    path = machine.register("wrong", text, folder=machine.system)
    machine.register("right", "module: b.so")
    assert machine.names() == ["right"]
    [left_out] = machine.read().left_out
    assert (left_out.why, left_out.reason) == (Why.PROBLEM, f"{path}{reason}")
    assert left_out.next_step
    assert not left_out.critical


def test_a_file_that_is_wrong_does_not_bring_back_the_packages(machine: Machine) -> None:
    machine.register("one", "module: a.so")
    machine.register("one", "disable-in replug-agent", folder=machine.user)
    assert machine.names() == []


def test_critical_is_told(machine: Machine) -> None:
    machine.register("wrong", "module: nowhere.so", "critical: yes")
    assert [one.critical for one in machine.read().left_out] == [True]


def test_a_mode_that_is_none(machine: Machine) -> None:
    machine.register("one", "module: a.so")
    machine.configure(machine.system, "user-config: maybe")
    registry = machine.read()
    assert registry.modules == ()
    assert [one.reason for one in registry.left_out] == [
        f"{machine.system.parent}/pkcs11.conf: user-config is 'maybe', not none, merge or only"
    ]


def test_other_files_of_the_folder(machine: Machine) -> None:
    """p11-kit reads files with odd names, too; what is no file is none."""
    machine.register("one", "module: a.so")
    (machine.packages / "folder.module").mkdir()
    (machine.packages / "dangling.module").symlink_to("nowhere")
    (machine.packages / "two.module.dpkg-old").write_text("module: b.so\n")
    assert machine.names() == ["one", "two.module.dpkg-old"]


@pytest.mark.parametrize("name", ["pkcs11.conf", "modules/one.module"])
def test_what_is_no_file_keeps_nobody_waiting(machine: Machine, name: str) -> None:
    """As a FIFO would, that stands where a file stood a moment ago."""
    (machine.user / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(machine.user / name)
    with pytest.raises(FileError, match="is not a regular file"):
        _read_fields(machine.user / name)
