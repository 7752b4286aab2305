"""Names, numbers and sets are those of the kernel and of systemd."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.linux.capability_sets import NAMES, Sets, in_a_drop_in, mask, names, parse_sets


def test_the_names_are_in_the_order_of_the_kernels_numbers() -> None:
    listed = subprocess.run(["setpriv", "--list-caps"], capture_output=True, text=True, check=True).stdout.split()
    assert [f"CAP_{name.upper()}" for name in listed] == list(NAMES[: len(listed)])
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(NAMES) >= min(last + 1, len(listed))


@given(st.sets(st.sampled_from(NAMES)))
def test_names_and_sets_are_two_views_of_the_same(chosen: set[str]) -> None:
    assert set(names(mask(chosen))) == chosen
    assert names(mask(chosen)) == tuple(sorted(chosen, key=NAMES.index))


@given(st.integers(0, 2**64 - 1))
def test_no_capability_of_a_later_kernel_is_lost(found: int) -> None:
    assert len(set(names(found))) == found.bit_count()
    assert all(name.startswith("CAP_") for name in names(found))


@given(st.builds(Sets, *[st.integers(0, 2**64 - 1)] * 5), st.text())
def test_the_sets_of_a_status_are_read_whatever_else_it_tells(sets: Sets, noise: str) -> None:
    fields = zip(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), sets, strict=True)
    told = "".join(f"{name}:\t{value:016x}\n" for name, value in fields)
    name = "".join(character for character in noise if character.isalnum())
    assert parse_sets(f"Name:\t{name}\n{told}NoNewPrivs:\t0\n") == sets


def test_a_drop_in_that_would_help_is_written_as_systemd_reads_it(tmp_path: Path) -> None:
    words = in_a_drop_in(["CAP_NET_RAW", "CAP_SYS_TIME"]).split(" and ")
    unit = tmp_path / "granted.service"
    unit.write_text("\n".join(["[Service]", "ExecStart=/bin/true", *words]))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert done.stderr == ""


def test_what_a_status_does_not_tell_is_empty() -> None:
    assert parse_sets("") == parse_sets("Name:\tx\nCapX:\tff\n") == Sets()
