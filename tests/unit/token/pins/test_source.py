"""PINs from files and credentials: whose file, which mode, and what is in it."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest
from doubles.stand_ins import Key

from replug.token.errors import TokenError
from replug.token.identity import TokenFlag, TokenId
from replug.token.names.pin_source import PinSource, SourceKind, parse_pin_source
from replug.token.pins.owner import PinOwner
from replug.token.pins.source import ConfiguredPin, read_pin
from replug.token.serving.shown_keys import ShownKeys

ANOTHER = 54321  # a user id


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "pin")


def write(path: Path, contents: bytes = b"123456\n", mode: int = 0o600) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(contents)
    path.chmod(mode)
    return path


def source(path: Path) -> PinSource:
    return PinSource(SourceKind.FILE, str(path))


def refusal(path: Path) -> str:
    with pytest.raises(TokenError) as caught:
        read_pin(source(path), os.environ)
    return str(caught.value)


def test_what_sources_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/you")
    assert parse_pin_source("prompt") is None
    assert parse_pin_source("file:/etc/hsm/pin") == PinSource(SourceKind.FILE, "/etc/hsm/pin")
    assert parse_pin_source("file:~/pin") == PinSource(SourceKind.FILE, "/home/you/pin")
    assert parse_pin_source("credential:hsm.pin") == PinSource(SourceKind.CREDENTIAL, "hsm.pin")


@pytest.mark.parametrize("text", ["file:/etc/hsm/pin", "credential:hsm.pin"])
def test_a_source_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_pin_source(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "123456", "pin:123456", "File:/123456", "file:", "file:123456", "file:/\0", "credential:"]
    + [f"credential:{name}" for name in ("..", ".", "a/123456", "1" * 256)],
)
def test_other_sources_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(must be|the (path|name) after)") as caught:
        parse_pin_source(text)
    assert "123456" not in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "pin"),
    [
        (b"123456", b"123456"),
        (b"123456\n", b"123456"),
        (b"123456\r\n", b"123456"),
        (b" 12 34 \n", b" 12 34 "),
        ("äöü\n".encode(), "äöü".encode()),
        (b"1" * 255 + b"\r\n", b"1" * 255),
    ],
)
def test_the_pin_is_the_line_in_the_file(file: Path, contents: bytes, pin: bytes) -> None:
    write(file, contents)
    read = read_pin(source(file), os.environ)
    assert read.value == pin
    assert (read.verified, read.sent, read.last_try_known) == (False, False, False)
    read.wipe()
    assert read.value == b""


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"1234\n5678\n", "has more than one line"),
        (b"1234\n\n", "has more than one line"),
        (b"12\x0034", "has more than one line"),
        (b"1" * 256, "has more than 255 bytes"),
        (b"1" * 100_000, "is longer than 257 bytes"),
    ],
)
def test_what_is_no_pin_is_not_sent(file: Path, contents: bytes, why: str) -> None:
    write(file, contents)
    told = refusal(file)
    assert why in told
    assert str(file) in told
    assert "1234" not in told
    assert "1111" not in told


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_a_file_that_others_may_touch(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert refusal(file) == (
        f"pin_source: {file}: can be read or changed by other users (mode {mode:04o}); chmod go-rwx {file}"
    )


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_file_of_ones_own(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert read_pin(source(file), os.environ).value == b"123456"


def belongs_to_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes `path` somebody else's; only root can give a file away, others become somebody else."""
    if os.geteuid() == 0:
        os.chown(path, ANOTHER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: ANOTHER)
    return path.stat().st_uid


def test_a_file_of_another_user(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = belongs_to_another(file, monkeypatch)
    assert f"{file}: belongs to user {owner}, not to you or root" in refusal(file)


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    file = write(folder / "pin")
    owner = folder.stat().st_uid
    if os.geteuid() == 0:
        owner = belongs_to_another(folder, monkeypatch)
        assert f"{file}: its folder {folder} belongs to user {owner}, not to you or root" in refusal(file)
    else:
        belongs_to_another(folder, monkeypatch)
        assert f"belongs to user {owner}, not to you or root" in refusal(file)


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_in_which_others_may_replace_it(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("staff", "x", gid, ["you", "other"])))
    outer = tmp_path / "open"
    (outer / "inner").mkdir(parents=True)
    outer.chmod(0o755)
    (outer / "inner").chmod(0o755)
    file = write(outer / "inner/pin")
    assert read_pin(source(file), os.environ).value == b"123456"
    outer.chmod(mode)
    assert f"its folder {outer} can be changed by other users; chmod go-w {outer}" in refusal(file)
    outer.chmod(mode | 0o1000)  # as /tmp
    assert read_pin(source(file), os.environ).value == b"123456"


def test_what_is_above_the_home_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "you").mkdir(mode=0o700)
    file = write(tmp_path / "you/pin")
    tmp_path.chmod(0o777)
    assert "can be changed by other users" in refusal(file)
    monkeypatch.setenv("HOME", str(tmp_path / "you"))
    assert read_pin(source(file), os.environ).value == b"123456"


def test_a_symbolic_link(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert f"{link}: is a symbolic link; name the file itself" in refusal(link)
    (tmp_path / "folder").symlink_to(tmp_path)
    assert read_pin(source(tmp_path / "folder/pin"), os.environ).value == b"123456"


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", mode=0o600)
    assert "is not a regular file" in refusal(tmp_path / "pipe")
    assert "is not a regular file" in refusal(tmp_path)
    assert "is not a regular file" in refusal(Path("/dev/null"))


def test_a_missing_file(tmp_path: Path) -> None:
    told = refusal(tmp_path / "pin")
    assert told.startswith(f"pin_source: {tmp_path}/pin: No such file or directory; put the PIN there")


# systemd credentials.


@pytest.fixture
def credentials(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    write(folder / "hsm.pin", mode=0o400)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


CREDENTIAL = PinSource(SourceKind.CREDENTIAL, "hsm.pin")


def test_a_credential(credentials: dict[str, str]) -> None:
    assert read_pin(CREDENTIAL, credentials).value == b"123456"


def test_a_credential_that_is_shared_by_an_acl(credentials: dict[str, str]) -> None:
    """What systemd gives a service of another user is root's; the ACL's mask shows as the group's bits."""
    file = Path(credentials["CREDENTIALS_DIRECTORY"], "hsm.pin")
    file.chmod(0o440)
    assert read_pin(CREDENTIAL, credentials).value == b"123456"
    file.chmod(0o444)
    with pytest.raises(TokenError, match="can be read or changed by other users"):
        read_pin(CREDENTIAL, credentials)


def test_a_missing_credential(credentials: dict[str, str]) -> None:
    with pytest.raises(TokenError, match="No such file or directory; give the service that credential"):
        read_pin(PinSource(SourceKind.CREDENTIAL, "other"), credentials)
    with pytest.raises(TokenError, match=r"CREDENTIALS_DIRECTORY is not set; start it as a systemd service"):
        read_pin(CREDENTIAL, {})


# A PIN that the token refused.


def owner(serial: str, module: str = "/module.so", key: Key | None = None) -> PinOwner:
    """A token at a module, with this key if it shows one."""
    keys = ShownKeys(lambda: None)
    keys.saw_without_login({} if key is None else {key.blob: key.token_key()})
    return PinOwner(module, TokenId("Maker", "Model", serial, "work"), keys)


TOKEN = owner("1")


def test_a_rejected_pin_is_read_again_only_when_it_was_changed(file: Path) -> None:
    configured = ConfiguredPin(source(file), os.environ)
    assert configured.read(TOKEN).value == b"123456"
    pin = configured.read(TOKEN)
    assert pin.value == b"123456"
    pin.past.rejected = True
    for _ in range(2):
        with pytest.raises(TokenError, match="the token refused the PIN in file:"):
            configured.read(TOKEN)
    replacement = write(file.with_name("new"), b"654321\n")
    replacement.replace(file)
    pin = configured.read(TOKEN)
    assert pin.value == b"654321"
    pin.past.rejected = True
    with pytest.raises(TokenError, match="not tried again"):
        configured.read(TOKEN)
    file.write_bytes(b"7654321\n")
    assert configured.read(TOKEN).value == b"7654321"


def test_a_pin_that_is_being_changed_is_not_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = ConfiguredPin(source(file), os.environ)
    reading = os.readv

    def changed_meanwhile(descriptor: int, buffers: list[memoryview]) -> int:
        count = reading(descriptor, buffers)
        write(file.with_name("new"), b"654321\n").replace(file)
        return count

    monkeypatch.setattr(os, "readv", changed_meanwhile)
    with pytest.raises(TokenError, match="is being changed; try again"):
        configured.read(TOKEN)
    monkeypatch.undo()
    assert configured.read(TOKEN).value == b"654321"


def test_what_is_read_again_is_the_same_pin(file: Path) -> None:
    """One that was sent, and maybe cost a try, is not a new one because the agent has read it once more."""
    configured = ConfiguredPin(source(file), os.environ)
    configured.read(TOKEN).past.sent = True
    assert configured.read(TOKEN).sent
    file.write_bytes(b"7654321\n")
    assert not configured.read(TOKEN).sent


def test_when_tries_are_missing_it_is_sent_only_in_place_of_a_refused_one(file: Path) -> None:
    configured = ConfiguredPin(source(file), os.environ)
    first = configured.read(TOKEN)
    assert not first.may_be_sent(TokenFlag.USER_PIN_COUNT_LOW, proven=True)
    assert first.may_be_sent(TokenFlag(0), proven=True)
    first.past.rejected = True
    file.write_bytes(b"7654321\n")
    for _ in range(2):
        second = configured.read(TOKEN)
        assert second.may_be_sent(TokenFlag.USER_PIN_COUNT_LOW, proven=True)
        assert not second.may_be_sent(TokenFlag.USER_PIN_FINAL_TRY, proven=True)


def test_it_is_for_one_token(file: Path) -> None:
    configured = ConfiguredPin(source(file), os.environ)
    configured.read(TOKEN)
    with pytest.raises(TokenError, match=r'is that of token "work".*give each token a'):
        configured.read(owner("2"))
    assert configured.read(TOKEN).value == b"123456"


def test_it_is_not_for_a_token_with_other_keys_behind_another_module(file: Path) -> None:
    configured, key = ConfiguredPin(source(file), os.environ), Key()
    configured.read(owner("1", key=key))
    with pytest.raises(TokenError, match=r"behind /module\.so; give each token a"):
        configured.read(owner("1", "/other.so", Key()))
    assert configured.read(owner("1", "/other.so", key)).value == b"123456"


def test_it_is_for_a_token_that_was_added_again(file: Path) -> None:
    configured = ConfiguredPin(source(file), os.environ)
    configured.read(owner("1", key=Key()))
    assert configured.read(owner("1")).value == b"123456"
