"""What installing the agent leaves on a machine, made once: most tests begin where an operator has done that already.

It is a layer over the pristine Debian of root.py, kept below ``.cache/system/installed/`` until the program, the Debian
or this file changes. Like that it is only ever read. A machine made of it has booted before: nothing starts at its boot
because it is new, as systemd presets would have it (``systemctl preset-all``, on a first boot alone).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.binary import built
from tests.system.host import Host
from tests.system.kept import kept
from tests.system.root import CACHE, debian

INSTALLED = CACHE / "installed"


def installation(suite: str, prefix: str) -> Path:
    """The layer for a release of Debian and a prefix. Nothing is enabled, started or declared in it."""
    parts = (debian(suite).name, prefix, built().onefile.parent.name, Path(__file__).read_text())

    def make(layer: Path) -> None:
        with Host(suite=suite, prefix=prefix) as host:
            host.lay()
            host.poweroff()
            host.keep_layer(layer)
        # What it said while it was made is no test's.
        shutil.rmtree(layer / "var/log/journal")

    return kept(INSTALLED, f"{suite}{prefix.replace('/', '-')}", "\0".join(parts).encode(), make)
