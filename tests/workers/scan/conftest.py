"""What the tests of scans share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.workers.scan import lab


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Network]:
    """The network of ``lab``, made once for all; nobody changes it."""
    with lab.network(tmp_path_factory.mktemp("lab")) as made:
        yield made
