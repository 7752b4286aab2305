"""Whether systemd is the service manager of this machine, and where what root tells it lies."""

from __future__ import annotations

from pathlib import Path

RUNNING = Path("/run/systemd/system")
"""Exists when it is, sd_booted(3)."""

UNITS = "/etc/systemd/system"
"""Where the units of a system's administrator are, systemd.unit(5)."""


def booted() -> bool:
    """Whether systemd runs this machine."""
    return RUNNING.is_dir()
