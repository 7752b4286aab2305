"""The directories below the prefix, as whoever comes first makes them: the agent, or ``run-once``."""

from __future__ import annotations

from agent.linux.files import make_directory
from agent.paths import Paths


def lay_out(paths: Paths) -> None:
    """Create what is missing; what is there keeps its mode. Raises ``StorageFailure``."""
    for directory, mode in (
        (paths.prefix, 0o755),
        (paths.run, 0o755),
        (paths.tmp, 0o755),
        (paths.logs, 0o750),
        (paths.spool, 0o751),  # a service finds its own directory, and sees no other
        (paths.agent_spool, 0o750),
    ):
        make_directory(directory, mode)
