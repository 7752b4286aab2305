"""A child holds what its request names and nothing else, whoever we are, whoever it is, and however it is started."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent.linux.spawn as spawning
from agent.linux import libc
from agent.linux.capability_sets import mask, parse_sets
from agent.linux.cgroup import CgroupTree
from agent.linux.spawn import SpawnRequest, run
from tests.linux.processes import eventually

RAW = mask(["CAP_NET_RAW"])
CHOWN = mask(["CAP_CHOWN"])
SHOW = ("grep", "-E", "^(Uid|Cap(Inh|Prm|Eff|Amb))", "/proc/self/status")
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}

CGROUP: list[int] = []
"""The cgroup in which the children of the test at hand are born, if any."""


@pytest.fixture(params=["as we are", "in a cgroup", "in a cgroup, one of many"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every way to start a process keeps every promise."""
    if request.param == "as we are":
        yield request.param
        return
    monkeypatch.setattr(spawning, "_MANY", 0 if request.param.endswith("many") else 1_000_000)
    tree: CgroupTree = request.getfixturevalue("tree")
    cgroup = tree.service("spawned")
    CGROUP.append(cgroup.fd())
    yield request.param
    CGROUP.clear()
    cgroup.kill()
    eventually(lambda: not cgroup.populated())
    assert cgroup.remove()


def shown(*argv: str, **fields: object) -> tuple[int, list[int]]:
    """Whose process it is, and what it holds: inheritable, permitted, effective, ambient."""
    request = SpawnRequest(
        argv=argv or SHOW,
        environment=ENVIRONMENT,
        cgroup=CGROUP[0] if CGROUP else None,
        **fields,  # type: ignore[arg-type]  # of the fields' own types
    )
    done = run(request, timeout=10)
    assert done.status.success, done
    uid, *sets = (line.split()[1] for line in done.stdout.decode().splitlines())
    return int(uid), [int(each, 16) for each in sets]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Whatever a child was given, we are afterwards as we were before."""
    before = parse_sets(Path("/proc/self/status").read_text())
    yield
    assert parse_sets(Path("/proc/self/status").read_text()) == before
    assert libc.prctl(libc.PR_GET_SECUREBITS, 0) == 0
    assert before.ambient == 0


def test_who_is_root_holds_what_root_does() -> None:
    held = parse_sets(Path("/proc/self/status").read_text()).bounding
    assert shown() == (0, [0, held, held, 0])


def test_a_user_holds_nothing() -> None:
    assert shown(user="nobody") == (65534, [0, 0, 0, 0])
    assert shown(user="nobody", capabilities=()) == (65534, [0, 0, 0, 0])


def test_a_user_holds_what_was_asked_for_and_exactly_that() -> None:
    assert shown(user="nobody", capabilities=["CAP_CHOWN", "CAP_NET_RAW"]) == (65534, [RAW | CHOWN] * 4)


@pytest.mark.parametrize("capabilities", [(), ("CAP_NET_RAW",)])
def test_root_too_holds_no_more_than_was_asked_for(capabilities: tuple[str, ...]) -> None:
    assert shown(capabilities=capabilities) == (0, [mask(capabilities)] * 4)


def test_what_such_a_root_starts_gets_no_more_either() -> None:
    assert shown("sh", "-c", f"'{SHOW[0]}' {SHOW[1]} '{SHOW[2]}' {SHOW[3]}; :", capabilities=()) == (0, [0] * 4)
    setuid_root = "su -s /bin/sh -c \"grep -E '^(Uid|Cap(Inh|Prm|Eff|Amb))' /proc/self/status\" root"
    assert shown("sh", "-c", setuid_root, capabilities=("CAP_SETUID", "CAP_SETGID")) == (
        0,
        [mask(["CAP_SETUID", "CAP_SETGID"])] * 4,
    )


def test_what_a_user_holds_can_be_used() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        for capabilities, code in ((("CAP_CHOWN",), 0), (("CAP_NET_RAW",), 1)):
            file = Path(directory, f"{code}")
            request = SpawnRequest(
                argv=("sh", "-c", f"touch {file} && chown 0:0 {file}"),
                environment=ENVIRONMENT,
                user="nobody",
                cgroup=CGROUP[0] if CGROUP else None,
                capabilities=capabilities,
            )
            assert run(request, timeout=10).status.code == code
            assert (file.stat().st_uid == 0) == (code == 0)


def test_our_own_program_has_its_wish_as_a_user_and_as_root_stays_root() -> None:
    held = parse_sets(Path("/proc/self/status").read_text()).bounding
    assert shown(own_program=True, capabilities=["CAP_NET_RAW"]) == (0, [0, held, held, 0])
    assert shown(own_program=True, capabilities=["CAP_NET_RAW"], user="nobody") == (65534, [RAW] * 4)
