"""Which prefixes there can be. Pure: what stands on the disk is asked elsewhere."""

from __future__ import annotations

import re

from agent.errors import UsageError

PLAIN = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._+-]*)+", re.ASCII)
"""Letters that mean nothing to systemd, in a command line, a list of paths, tmpfiles.d or sysusers.d alike."""

TAKEN = ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var")
"""Directories of the system, whose ``lib``, ``run``, ``tmp`` or ``log`` an agent would take for its own."""

VOLATILE = ("/dev", "/proc", "/run", "/sys")
"""Nothing that is put below these is there after the next boot."""

HIDDEN = ("/home", "/root", "/tmp", "/var/tmp")  # noqa: S108  # nothing is put there: quite the contrary
"""What no process of the units sees: ProtectHome= and PrivateTmp= of agent.service, systemd.exec(5)."""


def checked(prefix: str) -> str:
    """``prefix`` without a trailing slash. Raises ``UsageError``, which says what would be right."""
    shown = f"--prefix {prefix!r}"
    if not prefix.startswith("/"):
        raise UsageError(f"{shown}: an installation has an absolute path, such as /srv or /opt/agent")
    plain = prefix.rstrip("/")
    if not plain or plain in TAKEN:
        raise UsageError(f"{shown}: is a directory of the system; choose one for the agent, such as /srv or /opt/agent")
    if not PLAIN.fullmatch(plain):
        raise UsageError(
            f"{shown}: stands in unit files, so each part of it is of the letters a-z, A-Z, 0-9 and . _ + - only"
        )
    if plain.startswith(tuple(f"{place}/" for place in VOLATILE)):
        raise UsageError(f"{shown}: is gone after the next boot; choose a directory on a disk")
    if f"{plain}/".startswith(tuple(f"{place}/" for place in HIDDEN)):
        raise UsageError(f"{shown}: is hidden from the service by its sandbox; choose another, such as /opt/agent")
    return plain
