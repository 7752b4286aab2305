"""Process 1 of the machine: mounts what a system has, runs the one command it was sent for, powers off.

The command and its results pass through the share ``out`` (see machine.py).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

POWER_OFF = 0x4321FEDC
"""``RB_POWER_OFF`` of reboot(2)."""

SHARE = Path("/share-of-the-machine")
"""A place where no checkout stands: the host's files stay visible everywhere else, /tmp included."""

MOUNTS = (
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devtmpfs", "/dev", "devtmpfs", ""),
    ("devpts", "/dev/pts", "devpts", ""),
    ("tmpfs", "/dev/shm", "tmpfs", ""),
    ("tmpfs", "/run", "tmpfs", ""),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", ""),
)


def mount(source: str, target: str, kind: str, options: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {target}: {os.strerror(number)}")


def main() -> None:
    for entry in MOUNTS:
        mount(*entry)
    mount(sys.argv[1], str(SHARE), "9p", "trans=virtio,version=9p2000.L,msize=262144")
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "CI": "true",
        "AGENT_MACHINE": "1",
        "TMPDIR": "/dev/shm",
    }
    subprocess.run(["ip", "link", "set", "lo", "up"], env=environment, check=True)
    command = (SHARE / "command").read_text().split("\0")
    root = Path(__file__).resolve().parents[2]
    tests = subprocess.Popen(
        [*command, f"--junit-xml={SHARE}/results.xml"], cwd=root, env=environment, stdin=subprocess.DEVNULL
    )
    while os.wait()[0] != tests.pid:  # orphans come to process 1, and it is the one to bury them
        pass


try:
    main()
finally:
    os.sync()
    ctypes.CDLL(None).reboot(POWER_OFF)
