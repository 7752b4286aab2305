"""What the host's capture library is called. Looking for it by ``ctypes.util.find_library`` would start ldconfig(8)."""

from __future__ import annotations

import ctypes

NAMES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
"""What Debian, the other distributions, and a development package call it."""


def find() -> str | None:
    """The first of ``NAMES`` that the dynamic linker finds and loads; ``None`` when it finds none."""
    for name in NAMES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    return None
