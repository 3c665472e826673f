"""Writes the units for the programs in /usr/bin into the folder that is given."""

import sys
from pathlib import Path

from replug.agent.setup.units import unit_texts

folder = Path(sys.argv[1])
folder.mkdir(parents=True)
for name, text in unit_texts(Path("/usr/bin/replug-agent")).items():
    (folder / name).write_text(text)
