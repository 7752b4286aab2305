"""What nmap is called with: nothing of a declaration's text, only numbers and words that stand here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.ports import parse_ports
from agent.errors import ConfigurationError
from agent.workers.scan.argv import Ask, ask_argv, nmap_environment, privileges, target_list
from agent.workers.scan.plan import make_plan
from agent.workers.scan.program import choose_scripts, find_nmap

WORDS = {
    *("-n", "--no-stylesheet", "--stats-every", "1s", "-oX", "-", "--max-rate", "-6", "-sn", "-sS", "-sT", "-sU", "-p"),
    *("-Pn", "-sV", "--version-intensity", "--min-parallelism", "-O", "--script", "--script-timeout", "60s", "-iL"),
}
NUMBERS = re.compile(r"[0-9]+|(T:|U:)?[0-9]+(-[0-9]+)?(,(T:|U:)?[0-9]+(-[0-9]+)?)*|/proc/self/fd/[0-9]+", re.ASCII)

ports_text = st.sampled_from(
    ["--script=x", "-oN/tmp/x", "80 -oN x", "80,--script", "T:80", "U:53", "-", "1-", "-80", "http*", "[80]", "8\u0660"]
)
hostile = st.sampled_from(
    ["--script=x", "-oN/tmp/x", "/x/scripts/a.nse,vuln", "/x/../../etc/passwd", "all", "-", "/x/ -oN.nse"]
)


@settings(deadline=None)
@given(
    st.text(max_size=30) | ports_text,
    st.lists(st.text(max_size=30) | hostile, max_size=2),
    st.sampled_from([None, 2, 7]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(-5, 2_000_000),
)
def test_no_text_can_become_an_option(
    ports: str, scripts: list[str], intensity: int | None, system: bool, v6: bool, privileged: bool, rate: int
) -> None:
    try:
        asked = parse_ports(ports)
        ask = Ask(6 if v6 else 4, asked.tcp, asked.udp, intensity, 8, tuple(scripts), system)
        program, *words = ask_argv(ask, nmap="/usr/bin/nmap", rate=rate, privileged=privileged, targets=7)
    except ConfigurationError as error:
        assert "\n" not in str(error)
        return
    assert program == "/usr/bin/nmap"
    files = words[words.index("--script") + 1] if "--script" in words else ""
    for word in words:
        assert word in WORDS or NUMBERS.fullmatch(word) or word == files
    for file in files.split(",") if files else ():
        assert re.fullmatch(r"/[A-Za-z0-9/._+-]+/[a-z0-9][a-z0-9._-]*\.nse", file)
    assert max(map(len, words)) < 100_000  # execve(2) takes 128 KiB in one word


@settings(deadline=None)
@given(st.lists(st.text(max_size=40) | hostile | ports_text, max_size=3), st.lists(st.text(max_size=20), max_size=2))
def test_no_text_of_targets_can_become_more_than_an_address(targets: list[str], exclude: list[str]) -> None:
    try:
        plan = make_plan(["10.0.0.1", *targets], exclude)
    except ConfigurationError:
        return
    for chunk in plan.chunks():
        assert re.fullmatch(rb"([0-9a-f.:]+(%[A-Za-z0-9_.-]{1,15})?\n)+", target_list(chunk.addresses))


def asks() -> list[tuple[Ask, bool]]:
    (certificates,) = choose_scripts(["ssl-cert"], find_nmap().data)
    one = ((1, 1),)
    return [
        (Ask(4), True),
        (Ask(6), True),
        (Ask(4), False),
        (Ask(4, tcp=one), False),
        (Ask(6, tcp=one, intensity=2, at_once=64, scripts=(certificates.path,)), True),
        (Ask(4, tcp=one, udp=one, intensity=0, system=True), True),
    ]


@pytest.mark.parametrize("number", range(6))
def test_nmap_itself_takes_every_command_line(number: int) -> None:
    ask, privileged = asks()[number]
    reading, writing = os.pipe()
    os.write(writing, target_list(("::1" if ask.family == 6 else "127.0.0.1",)))
    os.close(writing)
    words = ask_argv(ask, nmap="nmap", rate=1000, privileged=privileged, targets=reading)
    environment = nmap_environment(os.environ, privileged=privileged, data_directory=None)
    done = subprocess.run(words, env=environment, pass_fds=[reading], capture_output=True, check=True)
    os.close(reading)
    assert b'exit="success"' in done.stdout
    assert b'total="1"' in done.stdout


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (Ask(4, udp=((53, 53),)), "need CAP_NET_RAW"),
        (Ask(4, tcp=((1, 65535),), intensity=2), "65535 ports are too many"),
        (Ask(4, tcp=((1, 1),), intensity=10), "from 0 to 9"),
        (Ask(4, tcp=((1, 1),), intensity=1, at_once=0), "from 1 to 300"),
        (Ask(4, tcp=((1, 1),), scripts=("vuln",)), "not the path of a script"),
    ],
)
def test_what_nmap_is_never_asked(ask: Ask, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        ask_argv(ask, nmap="nmap", rate=1, privileged=False, targets=3)


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
