"""Whose a cgroup is: names as systemd, docker, podman and others give them, and cgroups that are really there."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux.cgroup_owner import Owner, owner_of, paths_of
from agent.linux.cgroup_place import home

A = "0123456789abcdef" * 4
SHORT = A[:12]


@pytest.mark.parametrize(
    ("path", "unit", "container", "service"),
    [
        ("/", "", "", ""),
        ("/system.slice/ssh.service", "ssh.service", "", ""),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", "", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-foo.service", "app-foo.service", "", ""),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", "", ""),
        ("/system.slice/agent.service/service.api", "agent.service", "", "api"),
        ("/agent-0badc0de/service.api/aside", "", "", "api"),
        (f"/system.slice/docker-{A}.scope", f"docker-{A}.scope", f"docker/{SHORT}", ""),
        (f"/docker/{A}", "", f"docker/{SHORT}", ""),
        (f"/machine.slice/libpod-{A}.scope/container", f"libpod-{A}.scope", f"podman/{SHORT}", ""),
        (f"/libpod_parent/libpod-{A}", "", f"podman/{SHORT}", ""),
        (
            f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{A}.scope",
            *(f"cri-containerd-{A}.scope", f"containerd/{SHORT}", ""),
        ),
        ("/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn@web.service", "nspawn/web", ""),
        (
            r"/machine.slice/machine-my\x2dbox.scope/init.scope/system.slice/nginx.service",
            *("nginx.service", "machine/my-box", ""),
        ),
        ("/lxc.payload.web/system.slice/nginx.service", "nginx.service", "lxc/web", ""),
        ("/lxc/web", "", "lxc/web", ""),
        ("/lxc.payload.w\udcff\x1b", "", r"lxc/w\xff\x1b", ""),
        ("/lxc/w\udcff\x1b", "", r"lxc/w\xff\x1b", ""),
        (
            r"/machine.slice/machine-caf\xc3\xa9\x1b\xff.scope",
            *(r"machine-caf\xc3\xa9\x1b\xff.scope", "machine/caf\u00e9\\x1b\\xff", ""),
        ),
        ("/init.scope", "init.scope", "", ""),
    ],
)
def test_names_are_understood(path: str, unit: str, container: str, service: str) -> None:
    assert owner_of(path) == Owner(unit, container, service)


NAMES = st.sampled_from(["docker", "lxc", "libpod_parent", f"docker-{A}.scope", "service.web", "user.slice", A])
STRANGE = st.tuples(
    st.sampled_from(["lxc.payload.", "lxc-", "machine-", "systemd-nspawn@", "service.", ""]),
    st.text(max_size=10),
    st.sampled_from([".scope", ".service", ""]),
).map("".join)


@given(st.lists(NAMES | STRANGE, max_size=5).map("/".join))
def test_whatever_the_path_what_is_told_of_it_can_be_shown(path: str) -> None:
    found = owner_of(path)
    assert all(word.isprintable() for word in found)
    assert not found.service or f"service.{found.service}" in path.split("/")
    kind, slash, name = found.container.partition("/")
    assert (kind == "") if not slash else (kind.isascii() and name)


@pytest.fixture
def cgroup() -> Iterator[tuple[Path, str]]:
    """A cgroup of a service's name, and the path by which /proc would call it."""
    mount, _ = home()
    if mount.root != "/":
        pytest.fail("the tests need the root of the cgroup file system")
    directory = mount.point / f"drift-{uuid.uuid4().hex[:8]}.slice" / "web.service"
    directory.mkdir(parents=True)
    yield directory, f"/{directory.parent.name}/web.service"
    directory.rmdir()
    directory.parent.rmdir()


def test_a_cgroup_is_found_by_its_number(cgroup: tuple[Path, str]) -> None:
    directory, path = cgroup
    number = directory.stat().st_ino
    assert paths_of({number, 2**60}) == {number: path}
    assert paths_of(set()) == {}
    assert paths_of({number}, mountinfo="") == {}


def test_a_cgroup_of_any_name_is_found_and_those_below_it(cgroup: tuple[Path, str]) -> None:
    directory, path = cgroup
    odd = directory / os.fsdecode(b"x\xff\x1b\x0c0::")
    below = odd / "in"
    below.mkdir(parents=True)
    try:
        numbers = [odd.stat().st_ino, below.stat().st_ino]
        assert paths_of(set(numbers)) == {numbers[0]: f"{path}/{odd.name}", numbers[1]: f"{path}/{odd.name}/in"}
    finally:
        below.rmdir()
        odd.rmdir()


def test_a_mount_of_any_name_hides_no_cgroup(cgroup: tuple[Path, str], tmp_path: Path) -> None:
    """A user may have one, by fusermount(1)."""
    ask = (
        "import os, sys; from pathlib import Path; from agent.linux.cgroup_owner import paths_of\n"
        "from agent.linux.cgroup_place import home\nprint(home()[0].root, paths_of({int(sys.argv[1])}))"
    )
    place = tmp_path / os.fsdecode(b"m\xff\x85")
    place.mkdir()
    number = cgroup[0].stat().st_ino
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$4"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", os.fspath(place), sys.executable, ask, str(number)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"/ {{{number}: {cgroup[1]!r}}}\n"), done.stderr
