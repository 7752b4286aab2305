"""Leaving the temporary directory that the one-file form unpacks itself into.

systemd-tmpfiles empties ``/tmp`` by age, and a program that still loads modules from there, or starts workers, falls
over days later. So whatever is to run for long is first laid below its prefix, and this process becomes the program
that lies there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from agent.installation.install import lay
from agent.installation.tree import own
from agent.linux import libc
from agent.linux.become import become
from agent.linux.environment import fresh_environment
from agent.paths import Paths


def move_in(paths: Paths, words: Sequence[str]) -> NoReturn:
    """Lay the installed form below the prefix, unless it is there, and become it, with ``words`` as its arguments.

    What unpacked us is our parent, and what somebody started: should it be killed, so that it cannot pass a signal on,
    this process is told to stop.

    Raises ``RuntimeFailure`` and ``StorageFailure``.
    """
    program = str(lay(own(), str(paths.prefix)))
    print(f"agentctl: runs as {program}, and not from its unpacked files", file=sys.stderr, flush=True)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGTERM)
    become([program, *words], fresh_environment(os.environ))
