"""Keys of a real terminal, and the terminal as it was, however it ends. (More of it: tests/acceptance/test_top.py.)"""

from __future__ import annotations

import os
import pty
import signal
import termios
import time
from collections.abc import Iterator

import pytest

from agent.cli.terminal import Ended, keys


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the side where keys are pressed, and the program's."""
    near, side = pty.openpty()
    yield near, side
    os.close(near)
    os.close(side)


def soon() -> float:
    return time.monotonic() + 10


def test_keys_come_at_once_and_are_not_shown(terminal: tuple[int, int]) -> None:
    near, side = terminal
    with keys(side) as typed:
        os.write(near, b"x")
        assert typed.wait(soon()) == "x"
        assert not termios.tcgetattr(side)[3] & (termios.ECHO | termios.ICANON)
        assert typed.wait(time.monotonic()) is None


def test_another_size_is_told(terminal: tuple[int, int]) -> None:
    with keys(terminal[1]) as typed:
        os.kill(os.getpid(), signal.SIGWINCH)
        assert typed.wait(soon()) == ""
        assert typed.wait(time.monotonic()) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_everything_is_as_before(terminal: tuple[int, int], number: signal.Signals) -> None:
    before = termios.tcgetattr(terminal[1])
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)}
    with pytest.raises(Ended) as ended, keys(terminal[1]) as typed:
        os.kill(os.getpid(), number)
        typed.wait(soon())
    assert ended.value.number == number
    assert termios.tcgetattr(terminal[1]) == before
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_an_error_leaves_the_terminal_as_it_was(terminal: tuple[int, int]) -> None:
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(RuntimeError), keys(terminal[1]):
        raise RuntimeError
    assert termios.tcgetattr(terminal[1]) == before


def test_a_line_that_is_lost_is_as_good_as_q() -> None:
    near, side = pty.openpty()
    with keys(side) as typed:
        os.close(near)
        try:
            assert typed.wait(soon()) == "q"
        except OSError as error:
            pytest.fail(f"a lost line is {error}")
    os.close(side)
