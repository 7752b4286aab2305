"""What is offered as another version is looked at, asked and tried before it may do anything; and told in one line."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import AgentError, RuntimeFailure, UsageError
from agent.installation import candidate
from agent.installation.ground import MACHINES

Offer = Callable[..., Path]


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    """A program that is a shell script."""

    def make(script: str) -> Path:
        file = tmp_path / "agentctl-next"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    return make


def elf(machine: int, order: str = "<") -> bytes:
    """The first bytes of a program, elf(5): the identification, its type, and the machine."""
    return (
        b"\x7fELF\x02"
        + (b"\x01" if order == "<" else b"\x02")
        + b"\x01"
        + bytes(9)
        + struct.pack(f"{order}HH", 2, machine)
    )


def number_of(machine: str) -> int:
    return next(number for number, name in MACHINES.items() if name == machine)


def refused(call: Callable[[Path], object], file: Path) -> str:
    with pytest.raises(AgentError) as failure:
        call(file)
    assert "\n" not in str(failure.value)
    kind = UsageError if call is candidate.examine else RuntimeFailure
    assert isinstance(failure.value, kind)
    return str(failure.value).removeprefix(f"{file}: ")


# -- what it is -------------------------------------------------------------------------------------------------------


def test_a_program_of_this_machine_is_let_pass(tmp_path: Path) -> None:
    shutil.copy("/bin/true", tmp_path / "agentctl")
    candidate.examine(tmp_path / "agentctl")


def test_one_for_another_machine_says_which_is_wanted(tmp_path: Path) -> None:
    here, file = os.uname().machine, tmp_path / "agentctl"
    other = "aarch64" if here != "aarch64" else "x86_64"
    file.write_bytes(elf(number_of(other)) + bytes(100))
    file.chmod(0o755)
    told = f"is for {other}, and this machine is {here}: get the agentctl for {here}"
    assert refused(candidate.examine, file) == told
    file.write_bytes(elf(21, ">"))
    assert refused(candidate.examine, file).startswith("is for ELF machine 21, and this machine")


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\n", b"\x7fELF", elf(62)[:19], b"PK\x03\x04" + bytes(100), b"<!DOCTYPE html>\n<html>"],
    ids=["empty", "script", "cut off", "cut off late", "archive", "web page"],
)
def test_what_is_no_program_says_what_to_give(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "agentctl"
    file.write_bytes(content)
    file.chmod(0o755)
    told = "is no agentctl, nor any other program; give the one file of another version"
    assert refused(candidate.examine, file) == told


def test_what_cannot_be_read_says_why_and_nothing_is_waited_for(tmp_path: Path) -> None:
    assert refused(candidate.examine, tmp_path / "nowhere") == "cannot be read: No such file or directory"
    assert refused(candidate.examine, tmp_path) == "cannot be read: Is a directory"
    os.mkfifo(tmp_path / "pipe")
    assert refused(candidate.examine, tmp_path / "pipe").startswith("is no agentctl")
    assert refused(candidate.examine, Path("/dev/null")).startswith("is no agentctl")


def test_what_may_not_be_executed_says_what_mends_it(tmp_path: Path) -> None:
    file = tmp_path / "agentctl"
    shutil.copy("/bin/true", file)
    file.chmod(0o644)
    assert refused(candidate.examine, file) == f"may not be executed: chmod +x {file}"


# -- which version it is ----------------------------------------------------------------------------------------------


def test_it_says_itself_which_version_it_is(offer: Offer) -> None:
    assert candidate.version(offer('[ "$*" = --version ] && echo agentctl 0.2.0rc1')) == "0.2.0rc1"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo true 1.0", "true 1.0"),
        ("echo agentctl", "agentctl"),
        ("echo agentctl 0.2.0; exit 3", "agentctl 0.2.0"),
        ("exit 3", "exited 3"),
        ("kill -9 $$", "killed by SIGKILL"),
        ("echo no such option >&2; printf '\\033[2J\\n' >&2", " [2J"),
    ],
)
def test_what_does_not_say_so_is_no_agentctl(offer: Offer, script: str, why: str) -> None:
    told = f"does not say which version of agentctl it is ({why}); nothing was changed"
    assert refused(candidate.version, offer(script)) == told


def test_one_that_does_not_end_is_not_waited_for(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "VERSION_SECONDS", 0.3)
    file = offer("sleep 86641")
    assert refused(candidate.version, file) == f"{file} --version: not done after 0.3 s"


def test_what_looks_like_a_program_and_is_none_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "agentctl"
    file.write_bytes(elf(number_of(os.uname().machine)) + b"cut off")
    file.chmod(0o755)
    candidate.examine(file)
    assert refused(candidate.version, file) == (
        f"cannot start {file}: not a program: neither a binary of this machine nor a script with a #! line"
    )


# -- whether it works here --------------------------------------------------------------------------------------------


def test_one_that_passes_its_self_test_is_proved(offer: Offer) -> None:
    candidate.prove(offer('[ "$*" = "selftest --json" ]'))


def test_one_that_fails_it_tells_the_first_part_that_does(offer: Offer, tmp_path: Path) -> None:
    parts = [
        {"name": "scan", "verdict": "ok", "finding": "fine"},
        {"name": "calendar", "verdict": "fail", "finding": "a moon is in the way"},
        {"name": "control", "verdict": "fail", "finding": "nothing works"},
    ]
    (tmp_path / "said").write_text(json.dumps({"ok": False, "parts": parts}))
    file = offer(f"cat {tmp_path}/said; echo 'a warning' >&2; exit 2")
    assert refused(candidate.prove, file) == "fails its self-test: calendar: a moon is in the way; nothing was changed"


@pytest.mark.parametrize("said", ["", "[]", '{"parts": [{"verdict": "ok"}]}', '{"parts": 7}', "not JSON"])
def test_one_that_fails_without_saying_where_is_told_by_its_last_words(offer: Offer, said: str) -> None:
    file = offer(f"echo '{said}'; echo 'out of luck' >&2; exit 2")
    assert refused(candidate.prove, file) == "fails its self-test: out of luck; nothing was changed"


# -- having it install itself -----------------------------------------------------------------------------------------


def test_it_is_told_where_to_lay_itself_and_when_it_is_to_go_back(offer: Offer, tmp_path: Path) -> None:
    file = offer(f'echo "$*" >> {tmp_path}/asked')
    candidate.install(file, "/opt/agent")
    candidate.install(file, "/opt/agent", back=True)
    assert (tmp_path / "asked").read_text().splitlines() == [
        "install --prefix /opt/agent",
        "install --prefix /opt/agent --force",
    ]


@pytest.mark.parametrize(("code", "kind"), [(1, UsageError), (2, RuntimeFailure), (7, RuntimeFailure)])
def test_what_keeps_it_from_that_is_told_in_its_own_words(offer: Offer, code: int, kind: type[AgentError]) -> None:
    with pytest.raises(kind) as failure:
        candidate.install(offer(f"echo laid half; echo 'agentctl: no room' >&2; exit {code}"), "/opt/agent")
    assert str(failure.value) == "no room"


def test_it_runs_in_the_environment_of_whoever_asked(
    offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")
    monkeypatch.setenv("PREFIX", "/opt/agent")
    candidate.install(offer(f"env > {tmp_path}/environment"), "/opt/agent")
    found = (tmp_path / "environment").read_text().splitlines()
    assert {"TMPDIR=/somewhere", "PREFIX=/opt/agent"} <= set(found)


@pytest.mark.parametrize(
    "said",
    [
        "[PYI-72:ERROR] Failed to extract agentctl: decompression resulted in return code -1!\n"
        "[PYI-72:ERROR] Failed to extract entry: agentctl.",
        "agentctl-next: error while loading shared libraries: libz.so.1: failed to map segment from shared object",
    ],
    ids=["full", "noexec"],
)
@pytest.mark.parametrize("call", [candidate.version, candidate.prove])
def test_where_there_is_no_place_to_unpack_itself_that_is_told(
    offer: Offer, call: Callable[[Path], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = offer(f"echo '{said}' >&2; exit 255")
    told = "is full or unusable: make room, or name another place by TMPDIR="
    monkeypatch.delenv("TMPDIR", raising=False)
    assert refused(call, file) == f"cannot unpack itself: /tmp {told}"
    monkeypatch.setenv("TMPDIR", "/small")
    assert refused(call, file) == f"cannot unpack itself: /small {told}"


def test_it_is_to_wait_for_another_installation(offer: Offer, tmp_path: Path) -> None:
    candidate.install(offer(f"echo ${candidate.WAIT} > {tmp_path}/waits"), "/srv")
    assert (tmp_path / "waits").read_text() == "1\n"
