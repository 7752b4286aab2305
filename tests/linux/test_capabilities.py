"""What a process holds stays with it, and what a child is to hold it holds exactly: by real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux import capabilities, libc
from agent.linux.capability_sets import NAMES, mask, parse_sets
from tests.linux.processes import REFUSE_CAPSET, become_user_with, scripted

RAW = mask(["CAP_NET_RAW"])
CHOWN = mask(["CAP_CHOWN"])
OVERRIDE = mask(["CAP_DAC_OVERRIDE"])

PREAMBLE = """
import os, sys
from agent.linux.capabilities import NotGranted, acting, confine, handing_on, withhold
from agent.linux.capability_sets import mask, parse_sets
from pathlib import Path
def tell(who="self"):
    sets = parse_sets(Path(f"/proc/{who}/status").read_text())
    print(*[each & 0x2003 for each in (sets.inheritable, sets.permitted, sets.effective, sets.ambient)], flush=True)
def child():
    program = "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status"
    os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", program], {"PATH": "/usr/bin:/bin"}), 0)
"""


def lines(*fields: int) -> list[str]:
    """CapInh, CapPrm, CapEff and CapAmb as proc(5) has them."""
    parts = zip(("CapInh", "CapPrm", "CapEff", "CapAmb"), fields, strict=True)
    return [f"{name}:\t{value:016x}" for name, value in parts]


def test_the_sets_of_this_process_are_those_that_the_kernel_tells() -> None:
    sets = parse_sets(Path("/proc/self/status").read_text())
    assert libc.capget() == (sets.effective, sets.permitted, sets.inheritable)
    assert capabilities.permitted() == sets.permitted


def test_what_is_withheld_stays_with_the_process_and_no_child_has_any_of_it() -> None:
    told = scripted(f"{PREAMBLE}{become_user_with('CAP_NET_RAW')}\nchild(); withhold(); tell(); child()")
    assert told.splitlines() == [*lines(RAW, RAW, RAW, RAW), f"0 {RAW} {RAW} 0", *lines(0, 0, 0, 0)]


def test_a_child_holds_what_is_handed_on_to_it_and_the_next_one_nothing() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW", "CAP_CHOWN")}
withhold()
with handing_on(mask(["CAP_CHOWN"])):
    child()
child()
with handing_on(0):
    child()
tell()
""")
    both = RAW | CHOWN
    nothing = lines(0, 0, 0, 0)
    assert told.splitlines() == [*lines(*[CHOWN] * 4), *nothing, *nothing, f"0 {both} {RAW} 0"]


def test_over_files_an_ordinary_user_has_no_more_than_his_rights_but_where_it_says_so() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW", "CAP_CHOWN", "CAP_DAC_OVERRIDE")}
withhold()
tell()
with acting(mask(["CAP_CHOWN", "CAP_FOWNER"])):
    tell()
try:
    with acting(mask(["CAP_DAC_OVERRIDE"])):
        raise ValueError
except ValueError:
    tell()
""")
    held = RAW | CHOWN | OVERRIDE
    assert told.splitlines() == [f"0 {held} {RAW} 0", f"0 {held} {RAW | CHOWN} 0", f"0 {held} {RAW} 0"]


def test_root_stays_root_over_files() -> None:
    assert scripted(f"{PREAMBLE}withhold()\ntell()").split()[2] == scripted(f"{PREAMBLE}tell()").split()[2]


@pytest.mark.parametrize("wrapper", [(), ("setpriv", "--bounding-set", "-setpcap", "--inh-caps", "-setpcap")])
def test_root_that_confines_itself_holds_what_it_kept_and_no_more(wrapper: tuple[str, ...]) -> None:
    told = subprocess.run(
        [*wrapper, sys.executable, "-c", f'{PREAMBLE}confine(mask(["CAP_NET_RAW"])); tell(); print(os.geteuid())'],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    assert told.splitlines() == [f"0 {RAW} {RAW} 0", "0"]


def test_what_goes_wrong_meanwhile_leaves_nothing_to_be_inherited() -> None:
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW")}
withhold()
try:
    with handing_on(mask(["CAP_NET_RAW"])):
        raise ValueError
except ValueError:
    tell()
try:
    with handing_on(mask(["CAP_NET_RAW", "CAP_CHOWN"])):
        print("unreachable")
except NotGranted as error:
    print(error.strerror)
    tell()
with handing_on(mask(["CAP_NET_RAW"])):
    child()
""")
    kept = f"0 {RAW} {RAW} 0"
    assert told.splitlines() == [kept, "Operation not permitted", kept, *lines(*[RAW] * 4)]


def test_where_a_filter_forbids_capset_nothing_is_held_by_a_child_all_the_same() -> None:
    """The inheritable set stays then, which gives nothing to a program whose file has no capabilities of its own."""
    told = scripted(f"""{PREAMBLE}{become_user_with("CAP_NET_RAW")}{REFUSE_CAPSET}
withhold()
tell()
child()
with handing_on(mask(["CAP_NET_RAW"])):
    child()
child()
""")
    nothing = lines(RAW, 0, 0, 0)
    assert told.splitlines() == [f"{RAW} {RAW} {RAW} 0", *nothing, *lines(*[RAW] * 4), *nothing]


def test_a_wish_is_fulfilled_as_far_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "permitted", lambda: RAW)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert capabilities.grant(["CAP_NET_RAW"], 1000, wish=True) == (RAW, None)
    assert capabilities.grant(["CAP_CHOWN"], 1000, wish=True) == (0, None)
    assert capabilities.grant(["CAP_NET_RAW"], 0, wish=True) == (0, None)
    with pytest.raises(capabilities.NotHeld, match="AmbientCapabilities=CAP_CHOWN"):
        capabilities.grant(["CAP_CHOWN"], 1000, wish=False)


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), st.sampled_from([0, 1000]), st.booleans())
def test_whatever_is_asked_for_nobody_gets_more_than_that_or_than_is_held(
    wanted: set[str], held: set[str], uid: int, wish: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capabilities, "permitted", lambda: mask(held))
        patch.setattr(os, "geteuid", lambda: 1000)
        try:
            grant = capabilities.grant(sorted(wanted), uid, wish=wish)
        except capabilities.NotHeld as error:
            assert not wish
            assert not wanted <= held or uid == 0
            assert str(error).isprintable()
            return
    given = grant.handed_on | (grant.taken or 0)
    assert given & ~mask(wanted & held) == 0
    assert wish or given == mask(wanted)
