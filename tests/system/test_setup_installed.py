"""`replug setup` of an installation by pipx or uv, and of one by a distribution's package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.installation import build_wheel, install
from rigs.terminal import Done
from rigs.user_manager import HOME, UserManager

from replug.agent.setup.units import SERVICE, SOCKET, unit_texts

LogIn = Callable[[], UserManager]
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")
VENV = ".local/share/venvs/replug"
LINKS = [
    ".local/share/bash-completion/completions/replug",
    ".local/share/bash-completion/completions/replug-agent",
    ".local/share/fish/vendor_completions.d/replug-agent.fish",
    ".local/share/fish/vendor_completions.d/replug.fish",
    ".local/share/man/man1/replug-agent.1",
    ".local/share/man/man1/replug.1",
    ".local/share/man/man5/replug.toml.5",
]
ZSH = ".local/share/replug/zsh"
COUNT = len(LINKS) + 1


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def installed(wheel: Path, home: Home) -> None:
    """In a virtual environment, with links to the programs."""
    (home.folder / VENV).parent.mkdir(parents=True)
    (home.folder / ".local/bin").mkdir()
    for program in install(wheel, home.folder / VENV).glob("replug*"):
        (home.folder / ".local/bin" / program.name).symlink_to(HOME / VENV / "bin" / program.name)


@pytest.fixture
def session(installed: None, logged_in: LogIn) -> UserManager:
    """A user who has installed it."""
    return logged_in()


def replug(session: UserManager, *arguments: str, env: dict[str, str] | None = None) -> Done:
    path = {"PATH": f"{HOME}/.local/bin:/usr/bin:/bin"}
    done = session.run("replug", *arguments, env=path | (env or {}))
    assert (done.status, done.err) == (0, ""), done
    return done


def test_man_pages_and_completions_are_linked(session: UserManager, home: Home) -> None:
    before = session.listing()
    said = replug(session, "setup", env={"SHELL": "/usr/bin/zsh"}).out
    assert f"({COUNT} links)\n" in said
    assert f"  fpath+=({HOME}/{ZSH})\n" in said
    links = [home.folder / link for link in LINKS]
    assert [link.readlink() for link in links] == [
        HOME / VENV / "share" / link.relative_to(home.folder / ".local/share") for link in links
    ]
    assert (home.folder / ZSH).readlink() == HOME / VENV / "share/zsh/site-functions"

    assert replug(session, "setup").out.startswith("replug is already set up")
    removal = replug(session, "setup", "--remove").out
    assert f"remove the {COUNT} links to man pages and completions\n" in removal
    assert session.listing() == before


def test_man_and_fish_find_them_there(session: UserManager) -> None:
    replug(session, "setup")
    path = {"PATH": f"{HOME}/.local/bin:/usr/bin:/bin"}
    for page in ("replug.1", "replug-agent.1", "replug.toml.5"):
        found = session.run("man", "--path", page, env=path)
        assert found.out == f"{HOME}/{VENV}/share/man/man{page[-1]}/{page}\n", found
    fish = session.run("fish", "--command", "complete --do-complete 'replug sta'", env=path)
    assert fish.out.startswith("status\t"), fish


def test_links_that_are_left_behind_disturb_nobody(session: UserManager, home: Home) -> None:
    """It was uninstalled without `replug setup --remove`."""
    said = replug(session, "setup", env={"SHELL": "/usr/bin/zsh"}).out
    [line] = [line.strip() for line in said.splitlines() if line.startswith("  fpath+=")]
    (home.folder / ".zshrc").write_text(f"{line}\nautoload -Uz compinit; compinit -u -D\n")
    zsh = ("zsh", "-i", "-c", "echo $_comps[replug]")
    assert session.run(*zsh) == Done(0, "_replug\n", "")

    shutil.rmtree(home.folder / VENV)

    assert session.run(*zsh) == Done(0, "\n", "")
    for quiet in (("fish", "-c", "complete -C 'replug --'"), ("bash", "-c", "true")):
        assert session.run(*quiet) == Done(0, "", "")
    assert session.run("man", "replug").err == "No manual entry for replug\n"


def test_links_of_pipx_are_left_alone(installed: None, home: Home, logged_in: LogIn) -> None:
    page = home.folder / LINKS[5]
    page.parent.mkdir(parents=True)
    page.symlink_to("../../venvs/replug/share/man/man1/replug.1")
    session = logged_in()
    said = replug(session, "setup").out
    assert f"({COUNT - 1} links)\n" in said
    replug(session, "setup", "--remove")
    assert str(page.readlink()).startswith("..")


def test_links_follow_the_installation(session: UserManager, home: Home) -> None:
    """It was somewhere else before, such as with pipx and not with uv."""
    replug(session, "setup")
    (home.folder / VENV).rename(home.folder / "elsewhere")
    for link in (home.folder / ".local/bin").iterdir():
        link.unlink()
        link.symlink_to(HOME / "elsewhere/bin" / link.name)
    assert f"({COUNT} links)\n" in replug(session, "setup").out
    assert {str((home.folder / link).readlink()).partition("/share/")[0] for link in (*LINKS, ZSH)} == {
        f"{HOME}/elsewhere"
    }


@pytest.fixture
def packaged(session: UserManager, home: Home) -> UserManager:
    """A package has brought the units; they start the same program."""
    folder = home.folder / ".local/share/systemd/user"
    folder.mkdir(parents=True)
    for name, text in unit_texts(HOME / ".local/bin/replug-agent").items():
        (folder / name).write_text(text)
    return session


def test_units_of_a_package_are_enabled_and_not_copied(packaged: UserManager, home: Home) -> None:
    before = packaged.listing()
    said = replug(packaged, "setup").out
    assert "Done: the agent answers." in said
    assert "  write " not in said
    assert packaged.show(SOCKET, "FragmentPath") == f"{HOME}/.local/share/systemd/user/{SOCKET}"
    assert packaged.show(SOCKET, "UnitFileState") == "enabled"
    assert packaged.ssh_add("-l") == NO_IDENTITIES
    assert packaged.show(SERVICE, "FragmentPath") == f"{HOME}/.local/share/systemd/user/{SERVICE}"

    replug(packaged, "setup", "--remove")
    assert packaged.show(SOCKET, "ActiveState") == "inactive"
    assert packaged.listing() == before


def test_a_package_takes_over_from_an_earlier_setup(session: UserManager, home: Home) -> None:
    replug(session, "setup")
    assert session.ssh_add("-l") == NO_IDENTITIES
    folder = home.folder / ".local/share/systemd/user"
    folder.mkdir(parents=True)
    for name, text in unit_texts(HOME / ".local/bin/replug-agent").items():
        (folder / name).write_text(text)

    said = replug(session, "setup").out

    for name in (SERVICE, SOCKET):
        assert f"  remove {HOME}/.config/systemd/user/{name}, which an earlier replug setup made\n" in said
        assert session.show(name, "FragmentPath") == f"{HOME}/.local/share/systemd/user/{name}"
    assert "The agent that runs is still the one from before" in said
    assert session.show(SOCKET, "UnitFileState") == "enabled"
    session.log_out()
    session.log_in()
    assert session.ssh_add("-l") == NO_IDENTITIES


def test_a_unit_of_the_users_own_before_the_packages(packaged: UserManager, home: Home) -> None:
    own = home.folder / ".config/systemd/user" / SERVICE
    own.parent.mkdir(parents=True)
    own.write_text("[Service]\nExecStart=true\n")
    done = packaged.run(HOME / ".local/bin/replug", "setup", "--yes")
    assert done.status == 1
    assert f"{SERVICE} is not replug's and was not touched" in done.err


def test_a_folder_of_somebody_elses_is_left_alone(installed: None, home: Home, logged_in: LogIn) -> None:
    """As `sudo` leaves one behind; what matters is the agent."""
    session = logged_in()
    (home.folder / ".local/share/man").mkdir(mode=0o555)
    assert f"({COUNT - 3} links)\n" in replug(session, "setup").out
