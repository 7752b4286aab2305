"""Files as another user finds them, and credentials as root does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.cli.eyes import Seen
from agent.declaration.sources import Unreadable
from agent.linux.users import resolve_user


def test_files_are_seen_by_the_user_and_credentials_by_root(theirs: Path) -> None:
    seen = Seen(resolve_user("nobody", None))
    file = theirs / "key" / "env.toml"
    with pytest.raises(Unreadable, match="may not be read by user nobody"):
        seen.read(file)
    assert seen.by_root(file) == ""
    assert "may not be read by user nobody" in str(seen.objection(file, credential=False))
    assert seen.objection(file, credential=True) is None
    projects = theirs / "key" / "projects"
    assert seen.projects(projects) == []
    projects.mkdir(mode=0o700)
    with pytest.raises(Unreadable, match="may not be read by user nobody"):
        seen.projects(projects)
    assert os.geteuid() == 0
