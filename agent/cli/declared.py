"""What the declaration says of captures, as far as it can be read: what is stored is told without it, too."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.linux.owner import owner, seen_by
from agent.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.declaration.model import Capture, Service


def services(paths: Paths) -> Mapping[str, Service]:
    """The services of the declaration; none where that cannot be read. Root looks as the agent's user would."""
    from agent.declaration.load import load

    with suppress(AgentError), seen_by(owner(*paths.owned)):
        return load(paths, os.environ).services
    return {}


def captures(paths: Paths) -> dict[str, Capture]:
    """Those of them that capture."""
    from agent.declaration.model import Capture

    return {name: service for name, service in services(paths).items() if isinstance(service, Capture)}


def others(paths: Paths) -> set[str]:
    """The names of those that do not."""
    from agent.declaration.model import Capture

    return {name for name, service in services(paths).items() if not isinstance(service, Capture)}
