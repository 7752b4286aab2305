"""Which stores there are, as far as one may look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from agent.cli.capture_stores import check_interfaces, stores
from agent.errors import ConfigurationError, RuntimeFailure, StorageFailure, UsageError
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN, segment

NOBODY = 65534


@contextmanager
def stranger() -> Iterator[None]:
    """Nobody looks: without the rights of root."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def spool(open_directory: Path) -> Path:
    """Two captures, a scan, and what belongs to the agent alone."""
    place = open_directory / "spool"
    for name in ("edge", "core"):
        segment(place / name, "eth0", traffic.packets(Random(1), 3, begin=BEGIN))
    (place / "lan_scan").mkdir()
    (place / "agent").mkdir(mode=0o700)
    return place


def test_captures_are_told_from_other_services(spool: Path) -> None:
    assert stores(spool) == [spool / "core", spool / "edge"]
    assert stores(spool, ("edge", "edge")) == [spool / "edge"]
    with pytest.raises(UsageError, match="no capture is named 'lan_scan'"):
        stores(spool, ("lan_scan",))


def test_a_store_says_that_it_is_one_before_there_is_a_segment(spool: Path) -> None:
    (spool / "lan_scan" / "store.json").write_text('{"version": 1}')
    assert spool / "lan_scan" in stores(spool)
    (spool / "lan_scan" / "store.json").write_text('{"version": 2}')
    with pytest.raises(ConfigurationError, match="the store is of version 2"):
        stores(spool)


def test_who_may_look_into_one_is_not_kept_from_it_by_another(spool: Path) -> None:
    (spool / "core").chmod(0o700)
    with stranger():
        assert stores(spool) == [spool / "edge"]
        with pytest.raises(StorageFailure, match=r"core/store\.json: cannot be read: Permission denied"):
            stores(spool, ("core",))
    (spool / "edge").chmod(0o700)
    with stranger(), pytest.raises(StorageFailure, match="cannot be read: Permission denied"):
        stores(spool)


def test_a_spool_that_is_closed_or_not_there_is_said(spool: Path) -> None:
    spool.chmod(0o700)
    with stranger(), pytest.raises(StorageFailure, match="spool: cannot be read: Permission denied"):
        stores(spool)
    with pytest.raises(RuntimeFailure, match="no packets are stored below"):
        stores(spool / "nothing")


def test_an_interface_that_nothing_was_captured_on_is_said(spool: Path) -> None:
    check_interfaces([spool / "edge"], ("eth0",))
    with pytest.raises(UsageError, match=r"no interface is named 'eth1'; did you mean eth0\?; stored are eth0"):
        check_interfaces([spool / "edge"], ("eth1",))
    with pytest.raises(UsageError, match="stored are none"):
        check_interfaces([spool / "lan_scan"], ("eth1",))
