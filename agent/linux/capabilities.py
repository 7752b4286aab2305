"""Capabilities, capabilities(7): what this process holds, and how a child comes to hold some of it.

A program that an ordinary user executes holds what is in the ambient set at that instant, and nothing else (unless
its file has capabilities). So this process keeps its ambient set empty and raises in it, around the start of a child,
just what that child is to hold. The set belongs to the thread, and there is one; ``fork``, ``vfork`` and ``clone3``
copy it.

Over files an ordinary user's process has the rights of that user, whatever it holds: it works by paths below
directories in which other programs of that user could put a link. What it may do beyond it is in force only where it
says so (``acting``), on what it has taken hold of.

Root is another matter: whatever it executes holds everything, and who stops being root loses the ambient set. There
the child itself takes what it is to hold, after it has become who it is to be.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from agent.linux import libc
from agent.linux.capability_sets import in_a_drop_in, mask, names, numbers

ON_FILES = mask(
    [
        *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_LINUX_IMMUTABLE"),
        *("CAP_MKNOD", "CAP_MAC_OVERRIDE"),
    ]
)
"""What setfsuid(2), too, takes from who stops being root: ``CAP_FS_MASK`` of the kernel."""

_NOROOT = 1 << 0  # linux/securebits.h: for who is uid 0, execve(2) makes no exception
_NOROOT_LOCKED = 1 << 1


class NotGranted(OSError):
    """The kernel, or a filter of system calls before it, would not let a child hold what it was to hold."""


class NotHeld(Exception):
    """What a child is to hold is not ours to give; the message says what, and how it would be."""


class Grant(NamedTuple):
    """How a child comes to its capabilities: we hand them on, or it has to take them for itself (``take``)."""

    handed_on: int = 0
    taken: int | None = None


def permitted() -> int:
    """What this process holds, and so could hand on."""
    return libc.capget()[1]


def grant(wanted: Iterable[str], uid: int, *, wish: bool) -> Grant:
    """How a child that is to be user ``uid`` comes to hold exactly these.

    A ``wish`` is fulfilled as far as we can, and a child that is root then stays root, who holds everything. Raises
    ``NotHeld``.
    """
    capabilities, held = mask(wanted), permitted()
    if wish:
        if uid == 0:
            return Grant()
        capabilities &= held
    elif missing := names(capabilities & ~held):
        what = f"its `capabilities` ask for {' '.join(missing)}, which the agent does not hold"
        if os.geteuid() == 0:
            raise NotHeld(f"{what} although it is root: the container or unit it runs in has to allow it")
        raise NotHeld(f"{what}; a drop-in of its unit grants it: {in_a_drop_in(missing)}")
    if uid == 0:
        if not held & mask(["CAP_SETPCAP"]):
            raise NotHeld(
                "as root it would hold more than its `capabilities` (only CAP_SETPCAP prevents it): declare a `user`"
            )
        return Grant(taken=capabilities)
    if os.geteuid() == 0:
        return Grant(taken=capabilities or None)
    return Grant(handed_on=capabilities)


def withhold() -> None:
    """Keep to this process what it holds: nothing that it executes gets any of it, whoever starts it.

    It stays permitted, and effective but for ``ON_FILES``. Raises ``OSError``.
    """
    _clear_ambient()
    effective, permitted, inheritable = libc.capget()
    kept = off_files(effective)
    if inheritable or kept != effective:
        # systemd's @privileged filter forbids it, as in the shipped unit, which has nothing to keep off files. What
        # stays inheritable then matters only to a file with capabilities of its own.
        with suppress(PermissionError):
            libc.capset(kept, permitted, 0)


def off_files(capabilities: int) -> int:
    """Those of them that are to be effective at any time: for who is not root."""
    return capabilities if os.geteuid() == 0 else capabilities & ~ON_FILES


@contextmanager
def acting(capabilities: int) -> Iterator[None]:
    """Within, these are in force, as far as this process holds them. Raises ``OSError``."""
    effective, permitted, inheritable = libc.capget()
    lacking = capabilities & permitted & ~effective
    if not lacking:
        yield
        return
    libc.capset(effective | lacking, permitted, inheritable)
    try:
        yield
    finally:
        libc.capset(effective, permitted, inheritable)


@contextmanager
def refraining(capabilities: int) -> Iterator[None]:
    """Within, these are not in force: what is tried then ends as it would without them. Raises ``NotGranted``."""
    effective, permitted, inheritable = libc.capget()
    if not effective & capabilities:
        yield
        return
    with _refusals():
        libc.capset(effective & ~capabilities, permitted, inheritable)
    try:
        yield
    finally:
        libc.capset(effective, permitted, inheritable)


@contextmanager
def handing_on(capabilities: int) -> Iterator[None]:
    """What is executed by an ordinary user's child that is born within holds exactly these, which we must hold.

    Without any it costs a few microseconds and makes sure that nothing is handed on. Raises ``NotGranted``.
    """
    _clear_ambient()
    if not capabilities:
        yield
        return
    effective, permitted, inheritable = libc.capget()
    # Only what is inheritable may be ambient. Where it could not be withheld it need not be given either.
    lacking = capabilities & ~inheritable
    with _refusals():
        if lacking:
            libc.capset(effective, permitted, inheritable | lacking)
    try:
        with _refusals():
            _raise_ambient(capabilities)
        yield
    finally:
        _clear_ambient()
        if lacking:
            libc.capset(effective, permitted, inheritable)


@contextmanager
def keeping_through_setuid() -> Iterator[None]:
    """A child that is born within, and that stops being root, still holds what root does until it executes."""
    libc.prctl(libc.PR_SET_KEEPCAPS, 1)
    try:
        yield
    finally:
        libc.prctl(libc.PR_SET_KEEPCAPS, 0)


def take(capabilities: int) -> None:
    """For a child of root that has become who it is to be: the program it executes next is to hold exactly these.

    Where that is root, root is no longer special to this process, nor ever to what it starts. Raises ``NotGranted``.
    """
    with _refusals():
        if os.geteuid() == 0:
            secured = libc.prctl(libc.PR_GET_SECUREBITS, 0)
            libc.prctl(libc.PR_SET_SECUREBITS, secured | _NOROOT | _NOROOT_LOCKED)
        libc.capset(capabilities, capabilities, capabilities)
        _raise_ambient(capabilities)


def confine(kept: int) -> None:
    """Of what this process holds it keeps these, for good; root has no more than that either. Raises ``NotGranted``.

    For who starts nobody: where CAP_SETPCAP is not held, what root executes would be as root's programs are.
    """
    permitted = libc.capget()[1] & kept
    with suppress(OSError):
        if os.geteuid() == 0:
            secured = libc.prctl(libc.PR_GET_SECUREBITS, 0)
            libc.prctl(libc.PR_SET_SECUREBITS, secured | _NOROOT | _NOROOT_LOCKED)
    with _refusals():
        _clear_ambient()
        libc.capset(permitted, permitted, 0)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotGranted(error.errno, error.strerror) from error


def _clear_ambient() -> None:
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)


def _raise_ambient(capabilities: int) -> None:
    for number in numbers(capabilities):
        libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_RAISE, number)
