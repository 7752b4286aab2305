"""What the tests of installations share: installed forms, images, declarations of jobs and where their units lie."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.model import AgentSettings, AnyService, Command, Declaration, Timer
from agent.installation.tree import Tree
from agent.paths import Paths
from tests.installation.image import payload, system

Make = Callable[..., Tree]

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
PATHS = Paths.of("/srv")
HOURLY = Timer("hourly", calendar=parse_calendar("hourly"))
DAILY = Timer("daily", calendar=parse_calendar("daily"))
KEPT = Timer("daily", calendar=parse_calendar("daily"), persistent=True)
PERIOD = Timer("every 1h", every=3600.0)
LONGER = Timer("every 2h", every=7200.0)


def job(name: str = "job", timer: Timer = HOURLY, **more: object) -> Command:
    """A job that is declared so."""
    return Command(name=name, command=("/bin/true",), timer=timer, **{"restart": "no", **more})  # type: ignore[arg-type]  # as the caller has them


def declared(*services: AnyService, scheduler: str = "systemd") -> Declaration:
    """A declaration of these services."""
    settings = AgentSettings("here", scheduler=scheduler)  # type: ignore[arg-type]  # one of the two
    return Declaration(agent=settings, services={service.name: service for service in services})


def install(root: Path) -> Path:
    """Lay the templates below ``root``; returns the directory of units."""
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for template in SYSTEMD.glob("agent-job@.*"):
        shutil.copy(template, units)
    return units


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system on which the agent is installed, and nothing declared."""
    made = tmp_path / "system"
    install(made)
    return made


@pytest.fixture
def units(root: Path) -> Path:
    """Its directory of units."""
    return root / "etc/systemd/system"


def tree(directory: Path) -> dict[str, str]:
    """Every file and link below a directory, with its text or target, apart from the templates."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and "@." not in name:
            found[name] = path.read_text()
    return found


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Makes the installed form of a version; the words are those of ``payload``."""
    count = 0

    def make(version: str = "0.1.0", **words: object) -> Tree:
        nonlocal count
        count += 1
        return payload(tmp_path / f"payload-{count}", version, **words)  # type: ignore[arg-type]  # as the caller has them

    return make


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A system to install into."""
    return system(tmp_path / "image")


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)
