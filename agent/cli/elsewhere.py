"""Where the agent of this host is, for whoever looks for it below another prefix."""

from __future__ import annotations

from pathlib import Path

from agent.installation.whose import elsewhere


def hint(prefix: Path | str, root: Path = Path("/")) -> str:
    """What to add to "there is none below ``prefix``": where one is installed, if one is."""
    found = elsewhere(root, str(prefix))
    return f"; an agent is installed below {found}: --prefix {found}" if found else ""
