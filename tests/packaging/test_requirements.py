"""What is installed is pinned, hashed, and names no address: anybody's index or mirror will do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

PINNED = re.compile(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[0-9][^ ]*( ; [^\\]+)?( --hash=sha256:[0-9a-f]{64})+")


def entries(lock: Path) -> list[str]:
    """The requirements, each on one line."""
    joined = lock.read_text().replace(" \\\n    ", " ")
    return [line for line in joined.splitlines() if not line.lstrip().startswith("#")]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    found = entries(lock)
    assert found
    assert [entry for entry in found if not PINNED.fullmatch(entry)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_address_is_named(lock: Path) -> None:
    assert not re.search(r"://|--index|--extra|--find|--trusted", lock.read_text())


def test_pyinstaller_is_one_that_has_what_the_bundle_relies_on() -> None:
    (found,) = (entry for entry in entries(ROOT / "requirements" / "binary.txt") if entry.startswith("pyinstaller=="))
    version = found.partition("==")[2].split(" ")[0]
    assert tuple(map(int, version.split("."))) >= (6, 22, 3)


def test_make_installs_nothing_without_its_hash() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "PIP_INSTALL := $(PIP) install --require-hashes " in makefile
    lines = [line for line in makefile.splitlines() if " -r requirements/" in line]
    assert len(lines) == len(LOCKS)
    assert [line for line in lines if "$(PIP_INSTALL)" not in line and "--require-hashes" not in line] == []
