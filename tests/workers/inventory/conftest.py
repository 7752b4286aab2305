"""What was captured of real programs, once for all tests that look at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.inventory.lab import Lab, missing, traffic


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Real traffic of DHCP, ARP, ND, DNS, mDNS, LLDP and TLS."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, for which it has to be root")
    assert not missing(), f"these programs are missing: {missing()}"
    place: Path = tmp_path_factory.mktemp("lab")
    yield traffic(place)
