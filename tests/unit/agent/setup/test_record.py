"""The record of what setup did."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.agent.setup.record import (
    Record,
    RecordError,
    Replaced,
    load_record,
    remove_folders,
    save_record,
    write_file,
    write_link,
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record({"/f": "00"}, ["/a", "/a/b"], [Replaced("x.socket", True, False, True)], "/run/x")
    path = tmp_path / "state" / "setup.json"
    save_record(record, path)
    assert load_record(path) == record
    assert [one.name for one in path.parent.iterdir()] == ["setup.json"]


def test_none_was_written(tmp_path: Path) -> None:
    assert load_record(tmp_path / "setup.json") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "replaced": [1]}', "\xff"]
)
def test_one_that_cannot_be_used(text: str, tmp_path: Path) -> None:
    path = tmp_path / "setup.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match=str(path)):
        load_record(path)


def test_a_file_is_ours_as_long_as_it_is_as_we_wrote_it(tmp_path: Path) -> None:
    path, record = tmp_path / "a" / "b" / "file", Record()
    record.plan_write(path, "text")
    assert not record.wrote(path)
    write_file(path, "text")
    assert record.wrote(path)
    path.write_text("changed")
    assert not record.wrote(path)
    path.unlink()
    (tmp_path / "elsewhere").write_text("text")
    path.symlink_to(tmp_path / "elsewhere")
    assert not record.wrote(path)


def test_a_link_is_ours_as_long_as_it_leads_where_we_had_it_lead(tmp_path: Path) -> None:
    path, record = tmp_path / "a" / "link", Record()
    record.plan_link(path, Path("/nowhere"))
    assert not record.wrote(path)
    write_link(path, "/somewhere")
    assert not record.wrote(path)
    write_link(path, "/nowhere")
    assert record.wrote(path)
    path.unlink()
    path.write_text("/nowhere")
    assert not record.wrote(path)
    assert record.folders == [str(tmp_path / "a")]


def test_folders_that_were_made_go_if_they_are_empty(tmp_path: Path) -> None:
    record = Record()
    for name in ("a/b/one", "a/c/d/two"):
        record.plan_write(tmp_path / name, "")
        write_file(tmp_path / name, "")
    (tmp_path / "a/c/d/two").unlink()
    remove_folders(record.folders)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/b", "a/b/one"]


def test_what_is_longer_than_setup_writes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "setup.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RecordError, match="larger than"):
        load_record(path)
    record = Record()
    record.plan_write(path, "text")
    assert not record.wrote(path)
