"""Noticing that somebody set the wall clock, so that what was computed from it can be computed again."""

from __future__ import annotations

import errno
import os
import time

from agent.linux import libc

_NEVER = 1 << 33  # an expiry in the year 2242: only the cancellation is of interest


def boottime() -> float:
    """Seconds since boot, time asleep included (CLOCK_BOOTTIME, clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WallClockWatch:
    """``fd`` polls readable once CLOCK_REALTIME has jumped: set by hand or by NTP, or changed across a suspend.

    A timerfd with TFD_TIMER_CANCEL_ON_SET, timerfd_create(2). Slewing (a clock that is sped up or slowed down) is no
    jump. Raises ``OSError`` when no descriptor is to be had.
    """

    def __init__(self) -> None:
        self.fd = libc.timerfd_create(time.CLOCK_REALTIME)
        try:
            self._arm()
        except OSError:
            self.close()
            raise

    def acknowledge(self) -> bool:
        """Whether the clock jumped since the last call. Never blocks, and watches on."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        self._arm()
        return True

    def close(self) -> None:
        """Let go of the descriptor. Twice does no harm."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def _arm(self) -> None:
        try:
            libc.timerfd_settime(self.fd, libc.TFD_TIMER_ABSTIME | libc.TFD_TIMER_CANCEL_ON_SET, _NEVER)
        except OSError as error:
            if error.errno != errno.ECANCELED:  # it jumped yet again between the read and now; the timer is armed
                raise
