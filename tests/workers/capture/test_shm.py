"""Where segments wait in memory: in a place where everybody may make directories."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from agent.workers.capture import shm


def test_only_what_is_the_stores_users_or_roots_is_taken_for_a_captures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shm, "PLACE", tmp_path / "shm")
    data = tmp_path / "spool" / "edge"
    data.mkdir(parents=True)
    places = {name: tmp_path / "shm" / f"{shm.stem(data)}{name}" for name in ("root", "user", "stranger", "link")}
    for name in ("root", "user", "stranger"):
        places[name].mkdir(parents=True)
    places["link"].symlink_to(places["user"])
    nobody = pwd.getpwnam("nobody").pw_uid
    for path, uid in ((data, nobody), (places["user"], nobody), (places["stranger"], nobody - 1)):
        os.chown(path, uid, -1)
    assert shm.found(data) == sorted([places["root"], places["user"]])
    assert shm.found(tmp_path / "spool" / "other") == []
