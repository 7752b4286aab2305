"""A network namespace for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.capture.lab import Network, network, run


@pytest.fixture
def net() -> Iterator[Network]:
    """A namespace with one pair: what is sent into ``near`` is captured on ``far``."""
    with network() as made:
        made.pair("near", "far")
        yield made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory for a worker, whose data lie on a file system of 2 MiB."""
    data = tmp_path / "worker" / "data"
    data.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=2m", "capture-test", str(data))
    try:
        yield data.parent
    finally:
        run("umount", "--lazy", str(data))
