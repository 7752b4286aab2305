"""What the tests of installations share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.installation.tree import Tree
from tests.installation.image import payload, system

Make = Callable[..., Tree]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Makes the installed form of a version; the words are those of ``payload``."""
    count = 0

    def make(version: str = "0.1.0", **words: object) -> Tree:
        nonlocal count
        count += 1
        return payload(tmp_path / f"payload-{count}", version, **words)  # type: ignore[arg-type]

    return make


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A system to install into."""
    return system(tmp_path / "image")
