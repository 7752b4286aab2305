"""A process that becomes another keeps what it holds, and one that cannot goes on as it was."""

from __future__ import annotations

from agent.linux.capability_sets import mask
from tests.linux.processes import become_user_with, scripted

RAW = mask(["CAP_NET_RAW"])

SHOW = """
show = ["/bin/grep", "-E", "^Cap(Inh|Prm|Eff|Amb)|^Pid", "/proc/self/status"]
"""


def test_what_was_withheld_is_not_lost_and_the_process_stays_the_same() -> None:
    told = scripted(f"""
import os
from agent.linux.become import become
from agent.linux.capabilities import withhold
{SHOW}{become_user_with("CAP_NET_RAW")}
withhold()
print(os.getpid(), flush=True)
become(show, {{}})
""")
    pid, shown, *sets = told.splitlines()
    assert shown.split() == ["Pid:", pid]
    assert [int(line.split()[1], 16) for line in sets] == [RAW] * 4


def test_root_hands_on_nothing_since_it_needs_not() -> None:
    told = scripted(f"from agent.linux.become import become\n{SHOW}become(show, {{}})")
    inheritable, permitted, _, ambient = [int(line.split()[1], 16) for line in told.splitlines()[1:]]
    assert (inheritable, ambient) == (0, 0)
    assert permitted & RAW


def test_a_program_that_cannot_be_executed_is_one_line_and_nothing_is_handed_on() -> None:
    told = scripted(f"""
from agent.errors import RuntimeFailure
from agent.linux.become import become
from agent.linux.capabilities import withhold
from agent.linux.capability_sets import parse_sets
from pathlib import Path
{become_user_with("CAP_NET_RAW")}
withhold()
try:
    become(["/no/such/agentctl"], {{}})
except RuntimeFailure as failure:
    print(failure)
sets = parse_sets(Path("/proc/self/status").read_text())
print(sets.inheritable, sets.permitted, sets.ambient)
""")
    assert told.splitlines() == ["cannot execute /no/such/agentctl: No such file or directory", f"0 {RAW} 0"]


def test_descriptors_are_inherited_if_they_are_named_and_else_are_not() -> None:
    told = scripted("""
import os
from agent.linux.become import become
kept, lost = os.open("/usr", os.O_RDONLY), os.open("/etc", os.O_RDONLY)
become(["/bin/sh", "-c", "readlink /proc/$$/fd/*; exit 0"], {"PATH": "/usr/bin:/bin"}, [kept])
""")
    assert "/usr" in told.splitlines()
    assert "/etc" not in told.splitlines()


def test_one_that_is_not_there_is_a_failure_and_the_others_stay_our_own() -> None:
    told = scripted("""
import os
from agent.errors import RuntimeFailure
from agent.linux.become import become
mine, theirs = os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)
os.set_inheritable(theirs, True)
for program, more in (("/bin/true", [9999]), ("/no/such/agentctl", [])):
    try:
        become([program], {}, [mine, theirs, *more])
    except RuntimeFailure as failure:
        print(failure)
    print(os.get_inheritable(mine), os.get_inheritable(theirs))
""")
    assert told.splitlines() == [
        "cannot execute /bin/true: Bad file descriptor",
        "False True",
        "cannot execute /no/such/agentctl: No such file or directory",
        "False True",
    ]
