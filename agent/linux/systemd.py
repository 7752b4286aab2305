"""Whether systemd is the service manager of this machine."""

from __future__ import annotations

from pathlib import Path

RUNNING = Path("/run/systemd/system")
"""Exists when it is, sd_booted(3)."""


def booted() -> bool:
    """Whether systemd runs this machine."""
    return RUNNING.is_dir()
