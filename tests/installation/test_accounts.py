"""Users and groups of this system and of an image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.installation.accounts import gid, uid


def test_this_system_is_asked_by_its_name_service() -> None:
    assert (uid(Path("/"), "root"), gid(Path("/"), "root")) == (0, 0)
    assert uid(Path("/"), "no-such-user") is gid(Path("/"), "no-such-group") is None


def test_an_image_is_asked_by_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert uid(tmp_path, "agent") is None
    (tmp_path / "etc/passwd").write_text("strange\n\nagents:x:1:1::/:\nagent:x:990:991::/srv:/bin/sh\nbroken:x:y:z\n")
    (tmp_path / "etc/group").write_bytes(b"\xff:x:5:\nagent:x:991:someone\n")
    assert (uid(tmp_path, "agent"), gid(tmp_path, "agent")) == (990, 991)
    assert uid(tmp_path, "root") is uid(tmp_path, "broken") is uid(tmp_path, "") is None


@pytest.mark.parametrize("kind", ["link", "etc of somebody else"])
def test_the_files_of_an_image_are_not_anybody_elses(tmp_path: Path, kind: str) -> None:
    (tmp_path / "etc").mkdir()
    if kind == "link":
        (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    else:
        os.chown(tmp_path / "etc", 65534, 65534)
    with pytest.raises(RuntimeFailure):
        uid(tmp_path, "root")
