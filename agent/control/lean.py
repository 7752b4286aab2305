"""Keeps TLS out of processes that never speak it.

``asyncio`` imports ``ssl`` when it can, and ``ssl`` brings OpenSSL: 4 MiB of memory and 20 ms in a process that talks
over a local socket only. ``asyncio`` is made to work without it (a Python may be built so), and is told that it is not
there.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import cast


def leave_out_tls() -> None:
    """Call this before ``asyncio`` is imported, in a process of our own; too late it does nothing."""
    # None in sys.modules makes an import raise ImportError: the import system's own way of saying "not here".
    sys.modules.setdefault("ssl", cast(ModuleType, None))
