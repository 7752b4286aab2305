"""Small systems and small programs to install into them: real files, a real executable, real systemd-sysusers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agent.errors import AgentError
from agent.installation import tree
from agent.installation.tree import Tree

PROGRAM = Path("/usr/bin/sleep")
"""Stands for the program: it can be run, and then keeps running."""

SYSTEMD = {
    "agent.service": "[Service]\nExecStart=/srv/lib/agent/current/agentctl run\nReadWritePaths=/srv/run -/srv/spool\n"
    "# of VERSION\n",
    "agent.socket": "[Socket]\nListenStream=/srv/run/agent.sock\n\n[Install]\nWantedBy=sockets.target agent.service\n",
    "agent-job@.timer": "[Timer]\nOnCalendar=daily\n",
    "agent.sysusers.conf": 'u agent - "Agent" /srv\n',
    "agent.tmpfiles.conf": "d /srv 0755 root root -\n"
    + "".join(
        f"d /srv/{name} {mode} {owner} agent -\n"
        for name, mode, owner in (
            ("key", "0750", "root"),
            ("run", "0755", "agent"),
            ("tmp", "0755", "agent"),
            ("log", "0750", "agent"),
            ("spool", "0751", "agent"),
            ("spool/agent", "0750", "agent"),
        )
    ),
    "agent.catalog": "-- 6f766e281a4f40428036e23bfb80dc79\nSubject: A worker was started\n\nBelow /srv.\n",
    "privileged.conf": "[Service]\nReadWritePaths=/srv\n",
}
"""What every tree brings in ``systemd/``, as the real one does."""

COMPLETIONS = ("agentctl.bash", "_agentctl", "agentctl.fish")

UNSTEADY = ("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/.pwd.lock", "etc/shadow", "etc/gshadow")
"""What systemd-sysusers and userdel leave behind themselves."""


def payload(place: Path, version: str, *, build: str = "a", machine: str = "x86_64", extra: int = 0) -> Tree:
    """The installed form of a version, in the new directory ``place``; with ``extra`` bytes of ballast."""
    files = {
        "agentctl": PROGRAM.read_bytes(),
        "lib/library.so": b"library",
        "lib/base/module.py": f"build {build} of {version}".encode(),
        **{f"lib/share/agent/completions/{name}": b"complete agentctl\n" for name in COMPLETIONS},
        "lib/share/agent/man/agentctl.1": b".TH agentctl 1\n",
        **{
            f"lib/share/agent/systemd/{name}": text.replace("VERSION", version).encode()
            for name, text in SYSTEMD.items()
        },
        **({"lib/ballast": os.urandom(extra)} if extra else {}),
    }
    for name, data in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name == "agentctl" else 0o644)
    (place / "lib/link.so").symlink_to("library.so")
    parts: list[dict[str, Any]] = [
        {"path": name, "mode": "0755" if name == "agentctl" else "0644", "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    ]
    parts.append({"path": "lib/link.so", "link": "library.so"})
    manifest = {"version": version, "machine": machine, "glibc": "2.36", "files": parts}
    (place / tree.MANIFEST).write_text(json.dumps(manifest))
    return tree.laid(place)


def system(place: Path) -> Path:
    """A system that is just able to be installed into, in the new directory ``place``."""
    local = ("usr/local/bin", "usr/local/share", "etc/fish")
    for directory in ("etc/systemd/system", *local, "usr/bin", "usr/lib/systemd/system", "run", "srv", "opt"):
        (place / directory).mkdir(parents=True)
    (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (place / "etc/group").write_text("root:x:0:\n")
    (place / "etc/passwd").chmod(0o644)
    shutil.copy("/usr/bin/env", place / "usr/bin/env")
    return place


class Thing(NamedTuple):
    """One file, directory or link, with everything about it that an installation decides."""

    kind: int
    mode: int
    owner: tuple[int, int]
    contents: bytes


def snapshot(place: Path) -> dict[str, Thing]:
    """Everything below ``place``, by its path there."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if name in UNSTEADY:
            continue
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        contents = b""
        if kind == stat.S_IFREG:
            contents = path.read_bytes()
        elif kind == stat.S_IFLNK:
            contents = os.fsencode(path.readlink())
        found[name] = Thing(kind, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), contents)
    return found


CHANGES = frozenset(
    {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.symlink", "os.link", "os.chmod", "os.chown", "open"}
    | {"subprocess.Popen"}
)
"""Audit events of what leaves a trace: a process that ends between any two of them ends at a step."""


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process of its own, which SIGKILL ends right before the change of that number, from 0.

    Returns whether there were that many.
    """
    pid = os.fork()
    if pid == 0:
        try:
            left = number

            def watch(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal left
                if event in CHANGES and not (event == "open" and not _creates(arguments)):
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1

            sys.addaudithook(watch)
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"it ended with {code} on its own"
    return code != 0


def _creates(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & os.O_CREAT)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A file system in memory of its own."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "test", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def as_nobody(work: Callable[[], object]) -> str:
    """What ``work`` fails with when somebody does it who is not root; empty when it does not."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            work()
        except AgentError as error:
            os.write(writing, f"{error.exit_code} {error}".encode())
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as said:
        text = said.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text
