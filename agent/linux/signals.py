"""Signals in an asyncio loop, none of them lost.

``loop.add_signal_handler`` hands each signal on as a byte in a socket that holds fewer than 300 of them. When hundreds
of children end at once while the loop is busy, the byte of a SIGTERM may find no room, and nobody ever stops. Here the
interpreter's own flag, one for each signal, carries the news, and the byte only wakes the loop.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def watch(loop: asyncio.AbstractEventLoop, number: int, callback: Callable[[], None]) -> None:
    """Call back in the loop after that signal: once for any number of them that come before the loop gets to it."""
    pending = False

    def call() -> None:
        nonlocal pending
        pending = False
        callback()

    def note(number: int, frame: object) -> None:
        nonlocal pending
        if not pending:
            pending = True
            loop.call_soon_threadsafe(call)

    loop.add_signal_handler(number, _nothing)  # for the descriptor that wakes the loop, signal.set_wakeup_fd()
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
    signal.signal(number, note)


def ignore(loop: asyncio.AbstractEventLoop, number: int) -> None:
    """Watch no more; the signal has its default action again."""
    loop.remove_signal_handler(number)


def _nothing() -> None:
    """The byte has done its work: the loop is awake."""
