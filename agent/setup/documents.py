"""The manual pages and completions of replug where man and the shells of one user look for them."""

from __future__ import annotations

import os
from pathlib import Path

_ZSH = Path("zsh", "site-functions")
_ZSH_LINK = Path("replug", "zsh")
"""A folder, as compinit complains about each file that links nowhere, which ours do once replug is gone."""


def wanted_links() -> dict[Path, Path]:
    """The links that the user needs, by path, with the files that they lead to.

    pip installs those files into the virtual environment, where nothing looks for them. What man and the
    shells find as it is needs no link; paths where something else is are left out,
    and folders of somebody else's.
    """
    own, links = _data_home(), {}
    known = [own, *map(Path, (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":"))]
    for target, name in _installed():
        if any(target == folder / name for folder in known):
            continue
        if name.parent == _ZSH:
            target, name = target.parent, _ZSH_LINK
        # man finds ~/.local/share/man beside ~/.local/bin (manpath(1)), and no other.
        path = (Path.home() / ".local/share" if name.parts[0] == "man" else own) / name
        if (not os.path.lexists(path) or path.is_symlink()) and _may_write_below(path):
            links[path] = target
    return links


def zsh_line() -> str:
    """The line of ~/.zshrc by which zsh finds the linked completions."""
    return f"fpath+=({_data_home() / _ZSH_LINK})"


def _installed() -> list[tuple[Path, Path]]:
    """The files that this installation has below a folder `share`, and their names there."""
    from importlib.metadata import PackageNotFoundError, files

    found = []
    try:
        recorded = files("replug") or []
    except PackageNotFoundError:
        recorded = []
    for file in recorded:
        path = Path(os.path.normpath(str(file.locate())))
        if ".." in file.parts and "share" in file.parts and path.is_file():
            found.append((path, Path(*file.parts[file.parts.index("share") + 1 :])))
    return sorted(found)


def _may_write_below(path: Path) -> bool:
    return os.access(next(folder for folder in path.parents if folder.exists()), os.W_OK)


def _data_home() -> Path:
    """$XDG_DATA_HOME if it is absolute, else ~/.local/share."""
    given = os.environ.get("XDG_DATA_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share"
