"""A store that is another user's: refused in one line, before it fills up."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.linux.owner import seen_by
from agent.linux.users import resolve_user
from agent.workers.capture import ownership
from agent.workers.capture.naming import CLOSED, segment_name
from tests.workers.capture.lab import KIB, Network, refused, worker

A = resolve_user("daemon", None)
B = resolve_user("nobody", None)

SETTINGS = {"interfaces": ["far"], "budget": 64 * KIB * KIB}


@pytest.fixture
def store() -> Iterator[Path]:
    """Where everybody gets to, with one segment that has no index; it is root's."""
    above = Path(tempfile.mkdtemp(dir="/tmp"))  # a test's own directory is hidden from other users
    above.chmod(0o755)
    path = above / "data"
    (path / "far").mkdir(parents=True)
    for place in (path, path / "far"):
        place.chmod(0o750)
    segment = path / "far" / segment_name(10**18, CLOSED)
    segment.write_bytes(b"")
    segment.chmod(0o640)
    yield path
    shutil.rmtree(above)


def given(store: Path, uid: int, *, at: str = "**/*") -> None:
    for path in [store, *store.glob(at)]:
        os.chown(path, uid, uid)


def test_root_refuses_the_store_that_a_user_left_in_one_line_that_helps(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        capture.stop()
    data = tmp_path / "data"
    given(data, A.uid)
    status, lines = refused(tmp_path, net, **SETTINGS)
    assert (status, len(lines)) == (1, 1)
    assert f"{data}: is user daemon (1)'s, and user root (0) cannot write there without capabilities" in lines[0]
    assert f"(chown -R 0: {data})" in lines[0]
    given(data, 0)
    with worker(tmp_path, net, **SETTINGS) as capture:
        capture.stop()


@pytest.mark.parametrize("part", ["far", "far/*"])
def test_it_is_refused_for_the_directory_or_the_segment_of_an_interface_too(store: Path, part: str) -> None:
    ownership.check(store)
    for path in store.glob(part):
        os.chown(path, A.uid, A.gid)
    with pytest.raises(ConfigurationError, match=rf"{next(store.glob(part))}: is user daemon .*chown -R 0: {store}\)"):
        ownership.check(store)
    assert sorted(path.name for path in store.rglob("*")) == ["20010909T014640.000000Z.pcap", "far"]


def test_what_a_group_or_everybody_may_write_is_no_obstacle(store: Path) -> None:
    for path in [store, *store.rglob("*")]:
        os.chown(path, A.uid, 0)
        path.chmod(0o770 if path.is_dir() else 0o640)
    ownership.check(store)
    for path in [store, *store.rglob("*")]:
        os.chown(path, A.uid, A.gid)
        path.chmod(0o777 if path.is_dir() else 0o644)
    ownership.check(store)


def test_what_has_an_index_is_not_read_again_and_may_be_hidden(store: Path) -> None:
    (segment,) = store.rglob("*.pcap")
    os.chown(segment, A.uid, A.gid)
    segment.with_suffix(".idx").touch()
    ownership.check(store)


def test_one_user_after_another_is_refused_likewise(store: Path) -> None:
    given(store, A.uid)
    with seen_by(A):
        ownership.check(store)
    os.chown(store, B.uid, B.gid)  # as the agent does when it starts a service with a `user`
    expected = rf"{store}/far: is user daemon .*, and user nobody \({B.uid}\) cannot write there: give .*-R {B.uid}: "
    with seen_by(B), pytest.raises(ConfigurationError, match=expected):
        ownership.check(store)
    given(store, B.uid)
    with seen_by(B):
        ownership.check(store)


def test_where_there_is_no_store_yet_nothing_is_said(tmp_path: Path) -> None:
    ownership.check(tmp_path / "none")
