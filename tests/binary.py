"""The built program, for tests: made from the source as it stands, and kept in ``.cache/binary`` until that changes.

``built()`` is the program of this checkout, ``built("0.1.1")`` the same source under another version, for upgrades.
Many processes may ask at the same time: one builds, the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import marshal
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PyInstaller.archive.readers import CArchiveReader

import agent
from agent.installation.tree import MANIFEST

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "binary"

SOURCES = ("agent", "packaging", "requirements", "systemd", "build.spec", "LICENSE", "pyproject.toml")
"""What a build reads of the source tree, where it exists."""

KEPT = 6
"""Builds that stay in the cache; the ones unused for the longest time go."""


class Built(NamedTuple):
    """``onefile`` is the one file, ``tree`` the directory of the installed form with the executable ``agentctl``."""

    onefile: Path
    tree: Path
    version: str

    @property
    def program(self) -> Path:
        """The executable of the installed form."""
        return self.tree / "agentctl"


class Edit(NamedTuple):
    """A change to a file of the source, for a version that has a fault."""

    file: str
    before: str
    after: str

    def made(self, top: Path) -> str:
        """The file of the source at ``top`` with the change made."""
        text = (top / self.file).read_text()
        assert text.count(self.before) == 1, self
        return text.replace(self.before, self.after)


@cache
def built(version: str | None = None, *edits: Edit) -> Built:
    """The program of this source tree, built unless it has been.

    ``version`` is written over that of the source, and ``edits`` are made to it.
    """
    version = version or agent.__version__
    fault = f"-{hashlib.sha256(repr(edits).encode()).hexdigest()[:8]}" if edits else ""
    place = CACHE / f"{version}-{digest()}{fault}"
    with locked():
        if not place.exists():
            make(place, version, edits)
        os.utime(place)
        prune()
    return Built(place / "agentctl", place / f"agent-{version}", version)


def make(place: Path, version: str, edits: tuple[Edit, ...] = ()) -> None:
    """Build a copy of the source, and put what it becomes at ``place``."""
    scratch = place.with_suffix(".building")
    shutil.rmtree(scratch, ignore_errors=True)
    copy_source(scratch / "source", version)
    for edit in edits:
        (scratch / "source" / edit.file).write_text(edit.made(scratch / "source"))
    run_build(scratch / "source", scratch / "made")
    (scratch / "made").rename(place)
    shutil.rmtree(scratch)


def copy_source(target: Path, version: str) -> None:
    """What a build reads, copied to ``target``, under another version."""
    target.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copyfile(ROOT / name, target / name)
    module = target / "agent" / "__init__.py"
    text = module.read_text()
    assert text.count(f'"{agent.__version__}"') == 1
    module.write_text(text.replace(f'"{agent.__version__}"', f'"{version}"'))


def run_build(source: Path, output: Path) -> None:
    """As ``make binary`` does it, with the Python that runs the tests."""
    done = subprocess.run(
        [sys.executable, str(source / "packaging" / "build.py"), str(output)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"the program cannot be built (`make .venv/binary` sets up what it takes):\n{done.stdout}"
    )


def digest() -> str:
    """Of everything that a build depends on: the source, the pinned libraries, the interpreter."""
    seen = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for path in (path for name in SOURCES for path in files(ROOT / name)):
        seen.update(f"{path.relative_to(ROOT)} {os.access(path, os.X_OK)} {path.stat().st_size}\n".encode())
        seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def files(top: Path) -> Iterator[Path]:
    """The file itself, or all below the directory, in order, without what Python keeps beside them."""
    if top.is_file():
        yield top
    for path in sorted(top.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


@contextmanager
def locked() -> Iterator[None]:
    """While the block runs, no other process builds here."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prune() -> None:
    """Remove what was used the longest time ago, beyond ``KEPT``, and what an interrupted build left."""
    kept = sorted((path for path in CACHE.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in kept[:-KEPT]:
        shutil.rmtree(path)


# -- versions without a build -----------------------------------------------------------------------------------------

COOKIE = "!8sIIII64s"
"""How a bundle ends: magic, length, where its table begins and how long it is, Python's version and its library."""


def vary(target: Path, version: str, sources: Mapping[str, str]) -> None:
    """Lay the installed form at ``target`` as another version: ``sources`` are other texts for files of the source.

    That is a build in an instant, for versions that differ in a line: in modules, or in what ``systemd/`` holds.
    """
    original = built()
    modules = {_module(file): text for file, text in sources.items() if file.endswith(".py")}
    modules["agent"] = f'"""A version."""\n\n__version__ = "{version}"\n'
    contents = {f"lib/share/agent/{file}": text.encode() for file, text in sources.items() if not file.endswith(".py")}
    contents["agentctl"] = _with_modules(original.program, modules)
    manifest = json.loads((original.tree / MANIFEST).read_text())
    manifest["version"] = version
    for part in manifest["files"]:
        if part["path"] in contents:
            part["sha256"] = hashlib.sha256(contents[part["path"]]).hexdigest()
    contents[MANIFEST] = json.dumps(manifest).encode()
    shutil.copytree(original.tree, target, copy_function=_linked)
    for path, content in contents.items():
        mode = (target / path).stat().st_mode
        (target / path).unlink()
        (target / path).write_bytes(content)
        (target / path).chmod(mode)


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _with_modules(program: Path, sources: Mapping[str, str]) -> bytes:
    """The executable with a second bundle after its own: the bootloader takes the last one that it finds.

    Within it the table of the modules is made anew and leads to the compiled sources behind everything else; whatever
    the table does not name any more is not looked at.
    """
    archive = CArchiveReader(str(program))
    bundle = bytearray(archive.raw_pkg_data())
    size = struct.calcsize(COOKIE)
    magic, _, table, length, *python = struct.unpack(COOKIE, bundle[-size:])
    tail = bytes(bundle[table : table + length])
    del bundle[table:]
    base = archive.toc["PYZ.pyz"][0]
    modules = archive.open_embedded_archive("PYZ.pyz").toc
    for name, source in sources.items():
        code = compile(source, f"{name.replace('.', '/')}.py", "exec", dont_inherit=True, optimize=0)
        packed = zlib.compress(marshal.dumps(code), 0)
        modules[name] = (modules[name][0], len(bundle) - base, len(packed))
        bundle += packed
    bundle[base + 8 : base + 12] = struct.pack("!i", len(bundle) - base)
    bundle += marshal.dumps(list(modules.items()))
    table = len(bundle)
    bundle += tail
    return program.read_bytes() + bundle + struct.pack(COOKIE, magic, len(bundle) + size, table, length, *python)
