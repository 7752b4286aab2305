"""Which libpcap is loaded: the one of the bundle when there is one, else the host's.

``ctypes.util.find_library`` is not asked. It runs ldconfig(8), and where that knows nothing a compiler and a linker,
each a process started behind our back; and it tells of the host's library only.
"""

from __future__ import annotations

import ctypes

NAMES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
"""What Debian, the other distributions, and a development package call it."""


def load() -> tuple[str, ctypes.CDLL] | None:
    """The library, with the name that it was found by; ``None`` when it cannot be loaded."""
    for name in NAMES:
        try:
            return name, ctypes.CDLL(name)
        except OSError:
            continue
    return None
