"""The installed form that this very program carries, and whether it is whole.

Built by PyInstaller it is either a directory (``agentctl``, and everything else in ``lib/``), or one file that unpacks
the same things into a temporary directory while it runs, ``agentctl`` among the contents of ``lib/``. Both hold
``share/agent/manifest.json``, which names every file of the directory form but itself.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.errors import RuntimeFailure
from agent.installation.entry import Digest, Mode
from agent.linux.environment import frozen, one_file
from agent.linux.packed import unpack

PROGRAM = "agentctl"
CONTENTS = "lib"
"""Where PyInstaller puts everything but the executable (``contents_directory``)."""

SHARE = "share/agent"
"""Below the contents: what is no code."""

MANIFEST = f"{CONTENTS}/{SHARE}/manifest.json"
MANIFEST_MODE = "0644"

BLOCK = 1024 * 1024


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of the installed form, ``path`` relative to it: with mode and digest, or, as a link, with its target."""

    path: str
    mode: Mode = "0644"
    sha256: Digest | None = None
    link: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    """What belongs to one build. ``machine`` is as of uname(2)."""

    version: str
    machine: str
    files: tuple[Part, ...]


class Tree(NamedTuple):
    """An installed form on disk; ``executable`` and ``contents`` need not lie together."""

    executable: Path
    contents: Path
    manifest: Manifest
    manifest_digest: str

    def source(self, path: str) -> Path:
        """Where the part ``path`` of the installed form is to be read."""
        if path == PROGRAM:
            return self.executable
        return self.contents / path.removeprefix(f"{CONTENTS}/")

    @property
    def share(self) -> Path:
        """Completions, the manual page, licences, and the files of ``systemd/``."""
        return self.contents / SHARE


def own() -> Tree:
    """The installed form that the running program is, or carries and unpacks. Raises ``RuntimeFailure`` in a source
    tree, and where there is no room for all of it.
    """
    if not frozen():
        raise RuntimeFailure("this is the source tree, which cannot be installed; run the built agentctl: make binary")
    contents = Path(sys._MEIPASS)  # type: ignore[attr-defined]  # PyInstaller's
    if one_file():
        unpack(contents)
    return opened(contents / PROGRAM if one_file() else Path(sys.executable), contents)


def laid(directory: Path) -> Tree:
    """The installed form in ``directory``. Raises ``RuntimeFailure`` when there is none."""
    return opened(directory / PROGRAM, directory / CONTENTS)


def opened(executable: Path, contents: Path) -> Tree:
    """A tree by its two places. Raises ``RuntimeFailure`` when its manifest cannot be read."""
    file = contents / MANIFEST.removeprefix(f"{CONTENTS}/")
    try:
        data = file.read_bytes()
        return Tree(executable, contents, msgspec.json.decode(data, type=Manifest), hashlib.sha256(data).hexdigest())
    except OSError as error:
        raise RuntimeFailure(f"{file}: cannot be read: {error.strerror}; get agentctl anew") from error
    except (ValueError, RecursionError) as error:  # a DecodeError, or bytes that are no text
        raise RuntimeFailure(f"{file}: is damaged: {error}; get agentctl anew") from error


def verify(tree: Tree) -> None:
    """Read every file and hold it against the manifest. Raises ``RuntimeFailure`` for the first that is not whole."""
    for problem in problems(tree):
        raise RuntimeFailure(f"{problem}; get agentctl anew")


def problems(tree: Tree) -> Iterator[str]:
    """A line for each part that is missing or has other contents than when it was built."""
    for part in tree.manifest.files:
        path = tree.source(part.path)
        try:
            if part.link is not None:
                # The one-file form unpacks a link or a copy, as its file system allows.
                if not path.exists():
                    yield f"{path}: is missing"
            elif digest(path) != part.sha256:
                yield f"{path}: is damaged: it has other contents than when it was built"
        except OSError as error:
            yield f"{path}: cannot be read: {error.strerror}"


def digest(file: Path | int) -> str:
    """The SHA-256 of a file, or of what an open descriptor holds from its position on."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC) if isinstance(file, Path) else file
    try:
        total = hashlib.sha256()
        while block := os.read(descriptor, BLOCK):
            total.update(block)
        return total.hexdigest()
    finally:
        if isinstance(file, Path):
            os.close(descriptor)
