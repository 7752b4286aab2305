"""What systemd hands over as a service starts is found by its name, and by nobody for whom it is not meant."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux.listen import inherited, listening_socket
from tests.linux.processes import open_fds, scripted


@pytest.fixture
def three() -> Iterator[int]:
    """The first of three descriptors in a row, as systemd passes them: inheritable."""
    with ExitStack() as stack:
        lowest = 500
        for fd in range(lowest, lowest + 3):
            os.dup2(0, fd)
            stack.callback(os.close, fd)
        yield lowest


def given_by_systemd(**variables: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "control:output:output", **variables}


def test_descriptors_come_by_their_names_in_order_and_for_no_child(three: int) -> None:
    environ = given_by_systemd(HOME="/")
    assert inherited(environ, three) == {"control": [three], "output": [three + 1, three + 2]}
    assert environ == {"HOME": "/"}
    assert not any(os.get_inheritable(fd) for fd in range(three, three + 3))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("", {"unknown": [0, 1, 2]}),
        ("control", {"control": [0], "unknown": [1, 2]}),
        ("a::c:d:e", {"a": [0], "unknown": [1], "c": [2]}),
    ],
)
def test_those_without_a_name_are_unknown(three: int, names: str, expected: dict[str, list[int]]) -> None:
    found = inherited(given_by_systemd(LISTEN_FDNAMES=names), three)
    assert found == {name: [three + fd for fd in fds] for name, fds in expected.items()}


def test_what_is_announced_and_not_there_is_left_out(three: int) -> None:
    environ = given_by_systemd(LISTEN_FDS="5", LISTEN_FDNAMES="a:b:c:d:e")
    assert inherited(environ, three) == {"a": [three], "b": [three + 1], "c": [three + 2]}


@pytest.mark.parametrize(
    "variables",
    [
        {"LISTEN_PID": "1"},
        {"LISTEN_PID": ""},
        {"LISTEN_FDS": "0"},
        {"LISTEN_FDS": "-1"},
        {"LISTEN_FDS": "many"},
        {"LISTEN_FDS": "٣"},
        {"LISTEN_FDS": "99999"},
        {"LISTEN_FDS": "9" * 5000},
    ],
    ids=["another's", "nobody's", "none", "negative", "no number", "no ASCII", "too many", "far too many"],
)
def test_what_is_not_for_us_or_makes_no_sense_is_nothing(three: int, variables: dict[str, str]) -> None:
    environ = given_by_systemd(**variables)
    assert inherited(environ, three) == {}
    assert environ == {}
    assert os.get_inheritable(three)


@given(st.dictionaries(st.sampled_from(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]), st.text(max_size=8)))
def test_no_value_of_them_breaks_it(environ: dict[str, str]) -> None:
    assert inherited(environ | {"LISTEN_PID": str(os.getpid())}, 9000) == {}


def test_a_full_store_comes_with_the_socket() -> None:
    """FileDescriptorStoreMax=4096 in the unit, and the control socket of agent.socket besides."""
    told = scripted("""
import os, resource
from agent.linux.listen import inherited
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
nothing = os.open(os.devnull, os.O_RDONLY)
for fd in {*range(3, 3 + 4097)} - {nothing}:
    os.dup2(nothing, fd)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "4097", "LISTEN_FDNAMES": "control" + ":output" * 4096}
found = inherited(environ)
print(found["control"], len(found["output"]))
""")
    assert told == "[3] 4096\n"


def test_the_listening_socket_among_them_is_found_and_the_others_are_left() -> None:
    before = open_fds()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        ends = os.pipe()
        for fd in ends:
            stack.callback(os.close, fd)
        deaf = stack.enter_context(socket.socket(socket.AF_UNIX))
        deaf.bind(f"{directory}/deaf")
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        internet = stack.enter_context(socket.socket())
        internet.bind(("127.0.0.1", 0))
        internet.listen()
        others = [9999, *ends, deaf.fileno(), datagrams.fileno(), internet.fileno()]
        opened = open_fds()
        assert listening_socket(others) is None
        assert open_fds() == opened
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"{directory}/control")
        listening.listen()
        number = listening.detach()
        found = stack.enter_context(listening_socket([*others, number]) or pytest.fail("not found"))
        assert found.fileno() == number
        assert not found.getblocking()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{directory}/control")
            accepted, _ = found.accept()
            accepted.close()
        assert Path(directory, "control").is_socket()
    assert open_fds() == before
