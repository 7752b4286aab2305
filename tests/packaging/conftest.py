"""What the tests of the built program share: the program, and what is inside of it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PyInstaller.archive.readers import CArchiveReader

import bundle
from tests.binary import Built, built


@pytest.fixture(scope="session")
def program() -> Built:
    """Both forms of this source."""
    return built()


@pytest.fixture(scope="session")
def modules(program: Built) -> set[str]:
    """The names of all Python modules in the installed form, whatever they are kept in."""
    archive = CArchiveReader(str(program.program))
    names = {name for name, (*_, kind) in archive.toc.items() if kind in "msM"}
    names |= set(archive.open_embedded_archive("PYZ.pyz").toc)
    names |= set(in_library(program.tree / "lib" / "base_library.zip"))
    return names | set(in_c(program.tree / "lib"))


def in_library(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as library:
        for name in library.namelist():
            yield name.removesuffix(".pyc").removesuffix("/__init__").replace("/", ".")


def in_c(library: Path) -> Iterator[str]:
    """Extension modules: at the top of ``lib-dynload``, or where their package is."""
    for path in library.rglob("*.so"):
        if path.parent.name.endswith(bundle.WHEELS):
            continue  # no modules: what the modules of a wheel ask for
        parts = [*path.relative_to(library).parts[:-1], path.name.partition(".")[0]]
        yield ".".join(parts[2:] if "lib-dynload" in parts else parts)
