"""What an agent in the foreground tells the person in front of it: the command that shows it, from another terminal."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from agent.paths import Paths, native_prefix


def hint(paths: Paths) -> list[str]:
    """The line for whoever started this process; none when that was a service manager."""
    return [] if "NOTIFY_SOCKET" in os.environ else [f"in another terminal: {invitation(paths)}"]


def invitation(paths: Paths) -> str:
    """The command that shows this agent, as this user would have to type it in another terminal."""
    prefix = "" if paths.prefix == Path(native_prefix()) else f"PREFIX={shlex.quote(str(paths.prefix))} "
    return f"{prefix}{invocation(sys.argv[0])} status"


def invocation(program: str) -> str:
    """How ``agentctl`` was called: by its bare name where the PATH finds it, else by its path, else as a module."""
    import shutil  # for a person at a terminal only: an agent under a service manager never comes here

    name = Path(program).name
    if name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m agent"
    if "/" not in program:  # a bundle is told what was typed, and the PATH is where that was found
        return shlex.quote(name)
    found = shutil.which(name)
    with suppress(OSError):  # whose working directory has gone, or may not be entered, is told what was typed
        bare = found is not None and Path(program).exists() and Path(found).samefile(program)
        return shlex.quote(name if bare else str(Path(program).absolute()))
    return shlex.quote(program)
