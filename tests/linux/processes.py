"""Real processes for tests: they say when they are ready, and are waited for by what the kernel announces."""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from agent.linux.cgroup_place import parse_membership, parse_mounts

ROOT = str(Path(__file__).parents[2])

CAPSET = {"x86_64": 126, "aarch64": 91}[platform.machine()]
"""The number of capset(2)."""

BECOME_NOBODY = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
"""For a script, after its imports: the interpreter and the checkout may be in a directory that only root may enter."""


class Started:
    """A process under test and what it prints."""

    def __init__(self, argv: list[str], environment: dict[str, str] | None = None) -> None:
        self._popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=environment
        )
        self.pid = self._popen.pid

    @property
    def output_inode(self) -> int:
        assert self._popen.stdout is not None
        return os.fstat(self._popen.stdout.fileno()).st_ino

    def line(self) -> str:
        """The next line it prints, within ten seconds."""
        assert self._popen.stdout is not None
        fd = self._popen.stdout.fileno()
        found = b""
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([fd], [], [], 10)
            assert ready, f"printed only {found!r}"
            data = os.read(fd, 1)
            assert data, f"ended after {found!r}"
            found += data
        return found.decode().strip()

    def end(self) -> None:
        """Let it go on by closing its input."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def become_zombie(self) -> None:
        """Kill it, and wait until it is dead, but do not reap it."""
        self._popen.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def discard(self) -> None:
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for what the kernel announces to nobody."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.005)


def open_fds() -> list[str]:
    """The descriptors of this process."""
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def readable(fd: int, seconds: float = 10) -> bool:
    """Whether a descriptor polls readable within that time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def own_cgroup() -> str:
    return parse_membership(Path("/proc/self/cgroup").read_text()) or pytest.fail("no cgroup v2")


def own_directory() -> Path:
    root, point = parse_mounts(Path("/proc/self/mountinfo").read_text())[0]
    return Path(point + own_cgroup().removeprefix(root.rstrip("/")))


def become_user_with(*names: str) -> str:
    """For a script, after its imports: be nobody, and hold these as a service with ``AmbientCapabilities=`` does."""
    return f"""
import os
from agent.linux import capabilities, capability_sets, libc
libc.prctl(libc.PR_SET_KEEPCAPS, 1)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
capabilities.take(capability_sets.mask({names!r}))
"""


REFUSE_CAPSET = f"""
import ctypes, struct
from agent.linux import libc
_code = [(0x20, 0, 0, 0), (0x15, 0, 1, {CAPSET}), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
_filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _code))
_program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(_code), ctypes.addressof(_filter)))
libc.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
libc.prctl(22, 2, ctypes.addressof(_program))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
"""
"""For a script: from here on capset(2) fails with EPERM, as by systemd's ``SystemCallFilter=~@privileged``.

The program is: load the number of the call; if it is capset, return an error; else allow (seccomp(2)).
"""


def scripted(script: str) -> str:
    """What a script of Python prints that may import the house and tests; it must not fail."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {ROOT!r})\n{script}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
