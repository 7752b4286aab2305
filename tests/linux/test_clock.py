from __future__ import annotations

import os
import time

import pytest

from agent.linux.clock import WallClockWatch, boottime
from tests.linux.processes import open_fds, readable


def set_clock() -> None:
    """Set the clock to what it is: a jump of nothing that the kernel announces like any other."""
    time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME))


def test_setting_the_clock_is_noticed_each_time() -> None:
    watch = WallClockWatch()
    for _ in range(2):
        assert not readable(watch.fd, 0)
        assert not watch.acknowledge()
        set_clock()
        assert readable(watch.fd)
        assert watch.acknowledge()
        assert not watch.acknowledge()
    watch.close()


def test_two_jumps_before_anybody_looks_are_one() -> None:
    watch = WallClockWatch()
    set_clock()
    set_clock()
    assert watch.acknowledge()
    assert not readable(watch.fd, 0)
    watch.close()


def test_closing_twice_does_no_harm() -> None:
    before = open_fds()
    watch = WallClockWatch()
    assert not os.get_inheritable(watch.fd)
    watch.close()
    watch.close()
    assert open_fds() == before


def test_time_since_boot_goes_on() -> None:
    first = boottime()
    assert 0 < first <= boottime()
    assert first == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)
