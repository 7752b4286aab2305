"""Processes started by an ordinary user who holds a few capabilities, and by a root who does not hold them all."""

from __future__ import annotations

import pytest

from agent.linux.capability_sets import mask
from agent.linux.cgroup import CgroupTree
from tests.linux.processes import REFUSE_CAPSET, become_user_with, scripted

RAW = mask(["CAP_NET_RAW"])
CHOWN = mask(["CAP_CHOWN"])

PREAMBLE = """
import os, sys
from agent.errors import SpawnFailed
from agent.linux import libc
from agent.linux.capabilities import withhold
from agent.linux.capability_sets import mask
from agent.linux.spawn import SpawnRequest, run
def show(**fields):
    argv = ["grep", "-E", "^Cap(Inh|Prm|Eff|Amb)", "/proc/self/status"]
    try:
        done = run(SpawnRequest(argv=argv, environment={"PATH": "/usr/bin:/bin"}, **fields), 10)
        print(*[int(line.split()[1], 16) for line in done.stdout.decode().splitlines()])
    except SpawnFailed as failure:
        print(failure, failure.permanent)
"""


TOO_MUCH = "as root it would hold more than its `capabilities` (only CAP_SETPCAP prevents it): declare a `user`"


def same(value: int) -> str:
    return " ".join([str(value)] * 4)


def test_a_child_of_a_user_holds_what_it_is_given_and_the_next_one_nothing() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW", "CAP_CHOWN")}
withhold()
show(); show(capabilities=["CAP_NET_RAW"]); show(capabilities=[]); show(capabilities=["CAP_CHOWN"]); show()
""")
    assert told.splitlines() == [same(0), same(RAW), same(0), same(CHOWN), same(0)]


def test_nothing_is_handed_on_even_by_who_never_said_that_it_is_withheld() -> None:
    told = scripted(f"{PREAMBLE}{become_user_with('CAP_NET_RAW')}\nshow()\nshow(capabilities=['CAP_NET_RAW'])")
    assert told.splitlines() == [f"{RAW} 0 0 0", same(RAW)]


def test_what_we_do_not_hold_is_refused_with_the_line_that_would_grant_it() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW")}
withhold()
show(capabilities=["CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_SYS_TIME"])
show(capabilities=["CAP_CHOWN", "CAP_NET_RAW"], own_program=True)
""")
    assert told.splitlines() == [
        "cannot start grep: its `capabilities` ask for CAP_NET_BIND_SERVICE CAP_SYS_TIME, which the agent does not "
        "hold; a drop-in of its unit grants it: AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_SYS_TIME and "
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SYS_TIME True",
        same(RAW),
    ]


def test_a_user_who_may_become_others_hands_on_to_them() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID")}
withhold()
show(user="daemon"); show(user="daemon", capabilities=["CAP_NET_RAW"])
show(user="root", capabilities=["CAP_NET_RAW"])
""")
    assert told.splitlines() == [
        same(0),
        same(RAW),
        f"cannot start grep: {TOO_MUCH} True",
    ]


def test_a_user_who_may_become_root_keeps_that_root_to_what_was_asked_for() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")}
withhold()
show(user="root", capabilities=["CAP_NET_RAW"])
""")
    assert told.splitlines() == [same(RAW)]


def test_under_a_filter_that_forbids_capset_what_was_inheritable_can_be_handed_on() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW")}{REFUSE_CAPSET}
withhold()
show(); show(capabilities=["CAP_NET_RAW"]); show()
""")
    assert told.splitlines() == [f"{RAW} 0 0 0", same(RAW), f"{RAW} 0 0 0"]


def less(*names: str) -> str:
    """For a script: a root that does not hold these, as in a container."""
    return f"""
gone = mask({names!r})
libc.capset(*[each & ~gone for each in libc.capget()])
"""


def test_a_root_that_is_not_almighty_is_told_so() -> None:
    told = scripted(f"""{PREAMBLE}{less("CAP_SYS_TIME")}
show(user="nobody", capabilities=["CAP_SYS_TIME"])
show(user="nobody", capabilities=["CAP_NET_RAW"])
""")
    assert told.splitlines() == [
        "cannot start grep: its `capabilities` ask for CAP_SYS_TIME, which the agent does not hold although it is "
        "root: the container or unit it runs in has to allow it True",
        same(RAW),
    ]
    told = scripted(f"{PREAMBLE}{less('CAP_SETPCAP')}\nshow(capabilities=['CAP_NET_RAW'])")
    assert told == f"cannot start grep: {TOO_MUCH} True\n"


@pytest.mark.parametrize(
    ("in_a_cgroup", "reason"), [(False, ""), (True, ": Operation not permitted")], ids=["as we are", "in a cgroup"]
)
def test_what_the_kernel_refuses_a_child_is_no_start(
    request: pytest.FixtureRequest, in_a_cgroup: bool, reason: str
) -> None:
    cgroup = "None"
    if in_a_cgroup:
        tree: CgroupTree = request.getfixturevalue("tree")
        service = tree.service("refused")
        cgroup = f"os.open({str(service.directory)!r}, os.O_RDONLY | os.O_DIRECTORY)"
    told = scripted(f"""{PREAMBLE}{REFUSE_CAPSET}
cgroup = {cgroup}
show(user="nobody", capabilities=["CAP_NET_RAW"], cgroup=cgroup)
show(capabilities=[], cgroup=cgroup)
show(user="nobody", cgroup=cgroup)
""")
    refused = (
        "cannot start grep: the kernel, or a filter of system calls, does not let it have its `capabilities`"
        f"{reason} True"
    )
    assert told.splitlines() == [refused, refused, same(0)]
    if in_a_cgroup:
        assert service.remove()
