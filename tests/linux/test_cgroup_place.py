from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SpawnFailed
from agent.linux import cgroup_place
from agent.linux.cgroup import Cgroup
from agent.linux.cgroup_place import Mount, limited, limits_here, parse_membership, parse_mounts, visiting
from agent.linux.spawn import SpawnRequest, spawn
from tests.linux.processes import own_cgroup

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
42 31 0:38 /docker/ab /mnt/a\\040b rw - cgroup2 cgroup rw,nsdelegate
"""


def test_cgroup2_mounts_are_found_among_others_and_unescaped() -> None:
    assert parse_mounts(HYBRID) == [("/", "/sys/fs/cgroup/unified"), ("/docker/ab", "/mnt/a b")]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_garbage_names_no_mount_and_no_membership(text: str) -> None:
    parse_mounts(text)
    found = parse_membership(text)
    assert found is None or found.startswith("/")


def test_membership_is_the_line_of_version_2() -> None:
    assert parse_membership("9:name=systemd:/a\n4:memory:/b\n0::/system.slice/agent.service\n") == (
        "/system.slice/agent.service"
    )
    assert parse_membership("0::/gone (deleted)\n") == "/gone"
    assert parse_membership("4:memory:/b\n") is None


@pytest.mark.parametrize(
    ("root", "path", "directory"),
    [
        ("/", "/", "/m"),
        ("/", "/a/b", "/m/a/b"),
        ("/docker/ab", "/docker/ab", "/m"),
        ("/docker/ab", "/docker/ab/c", "/m/c"),
        ("/docker/ab", "/docker/abc", None),
        ("/", "/../outside", None),
    ],
)
def test_a_cgroup_is_found_below_the_mount_that_shows_it(root: str, path: str, directory: str | None) -> None:
    assert Mount(root, Path("/m")).directory(path) == (Path(directory) if directory else None)


def test_we_go_to_a_cgroup_ourselves_and_come_back(service: Cgroup) -> None:
    before = own_cgroup()
    with visiting(service.fd()) as inside:
        assert inside
        assert service.pids() == [os.getpid()]
    assert own_cgroup() == before
    assert not service.populated()


def test_we_do_not_go_where_a_limit_would_strike_us(service: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_place, "limited", lambda _: True)  # the machine of the tests may have no controllers
    with visiting(service.fd()) as inside:
        assert not inside
        assert not service.populated()


def test_a_limit_is_recognised(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not limited(directory)
        (tmp_path / "cpu.max").write_text("max 100000\n")
        (tmp_path / "memory.max").write_text("max\n")
        assert not limited(directory)
        (tmp_path / "pids.max").write_text("10\n")
        assert limited(directory)
    finally:
        os.close(directory)


def test_a_frozen_cgroup_is_not_entered(service: Cgroup) -> None:
    (service.directory / "cgroup.freeze").write_text("1")
    with pytest.raises(SpawnFailed, match="its cgroup is frozen") as failure:
        spawn(SpawnRequest(argv=["/bin/true"], environment={}, cgroup=service.fd()))
    assert not failure.value.permanent
    (service.directory / "cgroup.freeze").write_text("0")


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({"memory.max": "max", "cpu.max": "max 100000", "pids.max": "max"}, (None, None, None)),
        ({"memory.max": "117440512", "cpu.max": "50000 100000", "pids.max": "22"}, (117_440_512, 0.5, 22)),
        ({"cpu.max": "50000 0", "pids.max": "nonsense"}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_the_limits_of_our_own_cgroup_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limits: tuple[object, ...]
) -> None:
    """Where there are controllers tests/machine shows it for real."""
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(cgroup_place, "home", lambda: (None, tmp_path))
    assert limits_here() == limits
