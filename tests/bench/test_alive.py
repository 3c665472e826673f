"""`make bench` runs; its numbers here mean nothing."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from bench.chart import drawn
from bench.figures import Figure
from bench.loads import KEYS, LOADS
from bench.main import TINY, as_text, measured, write


def test_every_figure_is_measured_and_written_down(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("# Benchmarks\n\n<!-- what follows is written by `make bench` -->\nan older table\n")
    figures: list[Figure] = []

    found, ceiling = measured(TINY, None, (), figures.append)
    write(as_text(TINY, found, ceiling), document)

    text = document.read_text()
    assert text.startswith("# Benchmarks\n")
    assert "an older table" not in text
    ours = [figure for figure in figures if "replug" in figure.samples]
    assert [figure.what for figure in ours if f"| {figure.what} " not in text] == []
    positive = [figure for figure in figures if figure.unit != "%"]
    assert [figure.what for figure in positive if not all(map(all, figure.samples.values()))] == []
    assert [figure.what for figure in ours if figure.median("openssh") is None] == []
    image = ElementTree.fromstring(drawn(found))
    assert len(image.findall("{*}rect")) == len(KEYS) + len(TINY.keys) * len(LOADS)
