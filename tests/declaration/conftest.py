"""A declaration read from memory: what most tests of this floor start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.declaration.load import load_text
from agent.declaration.model import Declaration
from agent.declaration.sources import Unreadable
from agent.paths import Paths

GIB = 1024**3


class Memory:
    """Files by path below ``/k``, and a host of 8 GiB called ``host``, at ``NOW``.

    There is a secret for every name that does not begin with ``missing``.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = {Path("/k", name): text for name, text in files.items()}

    def read(self, path: Path) -> str:
        if path not in self.files:
            raise Unreadable("does not exist", missing=True)
        return self.files[path]

    def projects(self, directory: Path) -> list[Path]:
        return sorted(path for path in self.files if path.parent == directory)

    def objection(self, secret: Path, *, credential: bool) -> str | None:
        return f"{secret} does not exist" if secret.name.startswith("missing") else None

    def memory(self) -> int:
        return 8 * GIB

    def server(self) -> str:
        return "host"


@pytest.fixture(scope="session")
def read() -> Callable[..., Declaration]:
    """``read(text, environ, files)``: load ``text`` as ``/k/env.toml`` with ``files`` beside it."""

    def load(text: str, environ: Mapping[str, str] = {}, files: Mapping[str, str] = {}) -> Declaration:
        return load_text(text, Paths(Path("/p"), Path("/k/env.toml")), environ, Memory(files))

    return load
