"""A minimal Debian 12, made once: the root file system that every container of these tests starts from.

debootstrap fills it from the mirror that the host's own apt uses, or its own default where that is no Debian's. It is
kept below ``.cache/system/`` under a hash of this file, and is never written to again: a container lays its own
writable layer over it (see container.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.system.kept import kept

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "system"

SUITE = "bookworm"
"""Debian 12, with systemd 252: the oldest that has to do."""

NEWER = "trixie"
"""Debian 13, with systemd 257."""

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus"),  # what boots; dbus carries `systemctl` and `busctl`
    *("iproute2", "nmap", "tcpdump"),  # networks, and what is seen on them by others than the agent
    *("man-db", "bash-completion", "zsh", "fish"),  # what people look things up with
    "python3",  # for the services of the tests: programs that probe, hang and beat
)

# Nothing in a test waits for a login, a mirror or a disk.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("console-getty.service", "systemd-networkd-wait-online.service"),
)

IN_A_NAMESPACE_OF_ITS_OWN = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""debootstrap mounts into the tree that it fills: with it go its mounts and its processes, however it ends."""


def debian(suite: str = SUITE) -> Path:
    """The pristine tree, made now (in about a minute) if this file has not made it before. Only ever read it."""

    def make(tree: Path) -> None:
        _bootstrap(tree, suite)
        _settle(tree)

    return kept(CACHE, suite, Path(__file__).read_bytes(), make)


def _bootstrap(tree: Path, suite: str) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(tree), *_mirror()]
    done = subprocess.run(
        [*IN_A_NAMESPACE_OF_ITS_OWN, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, f"debootstrap exited {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def _mirror() -> list[str]:
    """Where the host's apt finds Debian itself; nothing when it knows none, as on another distribution."""
    ask = ("apt-get", "indextargets", "--format=$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian")
    for _ in range(2):
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if done.stdout:
            return done.stdout.split()[:1]
        # Who a mirror belongs to stands in the lists, which apt may have to fetch first.
        subprocess.run(["apt-get", "update"], capture_output=True, check=False)
    return []


def _settle(tree: Path) -> None:
    """What makes it a machine to test on rather than one to log in to."""
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for unneeded in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(tree / unneeded)
        (tree / unneeded).mkdir()
    # Each boot of a new container is a first boot, of a machine of its own.
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/hostname").write_text("agent-test\n")
