"""What nmap is called with: nothing of a declaration's text, only numbers and words that stand here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.model import Profile
from agent.errors import ConfigurationError
from agent.workers.scan.argv import (
    count_ports,
    format_ports,
    nmap_argv,
    nmap_environment,
    parse_ports,
    privileges,
    target_list,
)
from agent.workers.scan.plan import make_plan

PROFILES: tuple[Profile, ...] = ("discovery", "ports", "services")
WORDS = {
    *("-n", "--no-stylesheet", "--stats-every", "1s", "-oX", "-", "--max-rate", "-6", "-sn", "-sS", "-sT", "-p"),
    *("-sV", "--version-light", "-iL"),
}
NUMBERS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*|/proc/self/fd/[0-9]+", re.ASCII)
hostile = st.sampled_from(
    ["--script=x", "-oN/tmp/x", "80 -oN x", "80,--script", "T:80", "U:53", "-", "1-", "-80", "http*", "[80]", "8\u0660"]
)


def argv(profile: Profile, ports: str = "1-1024", rate: int = 1000, *, v6: bool = False, raw: bool = True) -> list[str]:
    return list(
        nmap_argv(
            nmap="/usr/bin/nmap",
            profile=profile,
            ports=parse_ports(ports),
            rate=rate,
            family=6 if v6 else 4,
            privileged=raw,
            targets=7,
        )
    )


@settings(deadline=None)
@given(st.text(max_size=30) | hostile, st.sampled_from(PROFILES), st.booleans(), st.booleans())
def test_no_text_of_ports_can_become_an_option(text: str, profile: Profile, v6: bool, raw: bool) -> None:
    try:
        program, *words = argv(profile, text, v6=v6, raw=raw)
    except ConfigurationError as error:
        assert "\n" not in str(error)
        return
    assert program == "/usr/bin/nmap"
    for word in words:
        assert word in WORDS or NUMBERS.fullmatch(word)


@settings(deadline=None)
@given(st.lists(st.text(max_size=40) | hostile, max_size=3), st.lists(st.text(max_size=20), max_size=2))
def test_no_text_of_targets_can_become_more_than_an_address(targets: list[str], exclude: list[str]) -> None:
    try:
        plan = make_plan(["10.0.0.1", *targets], exclude)
    except ConfigurationError:
        return
    for chunk in plan.chunks():
        assert re.fullmatch(rb"([0-9a-f.:]+(%[A-Za-z0-9_.-]{1,15})?\n)+", target_list(chunk.addresses))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 65535), st.integers(0, 300)), min_size=1, max_size=20))
def test_ports_mean_the_same_after_parsing(spans: list[tuple[int, int]]) -> None:
    text = ",".join(f"{low}-{min(65535, low + more)}" if more else str(low) for low, more in spans)
    expected = {port for low, more in spans for port in range(low, min(65535, low + more) + 1)}
    ranges = parse_ports(text)
    assert count_ports(ranges) == len(expected)
    assert {port for low, high in ranges for port in range(low, high + 1)} == expected
    assert parse_ports(format_ports(ranges)) == ranges


@pytest.mark.parametrize("text", ["", "0", "65536", "5-1", "1,,2", "1-2-3", " 1", "+1", "1e3", "999999999999"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a port or range"):
        parse_ports(text)


@pytest.mark.parametrize("rate", [0, -1, 10**9])
def test_a_rate_that_cannot_be_is_refused(rate: int) -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        argv("ports", rate=rate)


def test_each_profile_asks_for_what_it_says() -> None:
    assert argv("discovery")[-3:] == ["-sn", "-iL", "/proc/self/fd/7"]
    assert argv("ports")[-5:] == ["-sS", "-p", "1-1024", "-iL", "/proc/self/fd/7"]
    assert "-sT" in argv("ports", raw=False)
    assert "-sS" not in argv("ports", raw=False)
    assert {"-sV", "--version-light"} <= set(argv("services"))
    assert "-6" in argv("ports", v6=True)
    assert "-6" not in argv("ports")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_nmap_itself_takes_every_command_line(tmp_path: Path, profile: Profile, v6: bool, raw: bool) -> None:
    targets = tmp_path / "targets"
    targets.write_bytes(target_list(("::1",) if v6 else ("127.0.0.1",)))
    with targets.open("rb") as file:
        words = nmap_argv(
            nmap="nmap",
            profile=profile,
            ports=parse_ports("1-3"),
            rate=1000,
            family=6 if v6 else 4,
            privileged=raw,
            targets=file.fileno(),
        )
        environment = nmap_environment(os.environ, privileged=raw, data_directory=None)
        done = subprocess.run(words, env=environment, pass_fds=[file.fileno()], capture_output=True, check=True)
    assert b'exit="success"' in done.stdout
    assert b'total="1"' in done.stdout


def status(uid: int, permitted: int, bounding: int) -> str:
    return (
        f"Name:\tx\nUid:\t0\t{uid}\t0\t0\nCapInh:\t0\nCapPrm:\t{permitted:016x}\nCapEff:\t0\n"
        f"CapBnd:\t{bounding:016x}\nCapAmb:\t0\n"
    )


def test_raw_packets_are_used_when_the_right_to_them_survives_into_nmap() -> None:
    raw = 1 << 13
    assert privileges(status(0, raw, raw)) == (True, "")
    assert privileges(status(1000, raw, raw)) == (True, "")
    assert privileges(status(1000, raw, 0)) == (True, "")  # the bounding set concerns root and files only
    for without in (status(0, raw, 0), status(0, 0, raw), status(1000, 0, raw), status(0, ~raw & 0xFF, 0)):
        privileged, reason = privileges(without)
        assert not privileged
        assert "CAP_NET_RAW" in reason
    assert privileges("")[0] is False


def test_the_status_of_this_process_can_be_read() -> None:
    assert privileges(Path("/proc/self/status").read_text()) == (True, "")


def test_nmaps_environment_says_what_it_may_do_and_nothing_that_was_inherited() -> None:
    base = {"PATH": "/bin", "NMAPDIR": "/home/mallory", "NMAP_PRIVILEGED": "1", "NMAP_ARGS": "--script x"}
    assert nmap_environment(base, privileged=False, data_directory=None) == {"PATH": "/bin", "NMAP_UNPRIVILEGED": "1"}
    assert nmap_environment(base, privileged=True, data_directory="/usr/share/nmap") == {
        "PATH": "/bin",
        "NMAP_PRIVILEGED": "1",
        "NMAPDIR": "/usr/share/nmap",
    }
