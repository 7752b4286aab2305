"""A store is followed while it is written: nothing is left out, nothing comes twice, whatever the files are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.savefile import RECORD_HEADER
from agent.workers.retrieval.follow import Follower
from agent.workers.retrieval.offline import packets
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN
from tests.workers.retrieval.test_offline import datagram, record
from tests.workers.retrieval.test_offline import traffic as datagrams

MILLISECOND = 1_000_000


class Capture:
    """Writes segments of one interface, as a capture does; packets are numbered by their time."""

    def __init__(self, store: Path, interface: str = "eth0", link_type: int = traffic.ETHERNET) -> None:
        self.place = store / interface
        self.place.mkdir(parents=True, exist_ok=True)
        self._link_type = link_type
        self._part: Path | None = None
        self._first: int | None = None
        self.sent = 0

    def write(self, count: int, port: int = 53, cut: int = 0) -> None:
        """So many packets, of the last of which ``cut`` bytes are still to come."""
        if self._part is None:
            self._part = self.place / segment_name(BEGIN + self.sent * MILLISECOND - 1000, OPEN)
            self._part.write_bytes(traffic.file_header(self._link_type))
            self._first = BEGIN + self.sent * MILLISECOND
        new = [datagrams(1)[0]._replace(time=BEGIN + (self.sent + n) * MILLISECOND) for n in range(count)]
        self.sent += count
        data = b"".join(record(each._replace(data=datagram(port))) for each in new)
        with self._part.open("ab") as file:
            file.write(data[: len(data) - cut])
            self._rest = data[len(data) - cut :]

    def complete(self) -> None:
        """What was still to come."""
        assert self._part
        with self._part.open("ab") as file:
            file.write(self._rest)

    def close(self) -> None:
        if self._part is not None:
            assert self._first
            self._part.rename(self.place / segment_name(self._first, CLOSED))
            self._part = None


def numbers(taken: list[tuple[str, bytes]]) -> list[int]:
    return sorted((packet.time - BEGIN) // MILLISECOND for _, part in taken for packet in packets(part))


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    return Capture(tmp_path / "edge")


def test_what_was_there_before_is_not_shown_and_what_comes_is(capture: Capture) -> None:
    capture.write(5)
    capture.close()
    capture.write(5, cut=20)
    follower = Follower(capture.place.parent, (), "")
    assert follower.link_type == traffic.ETHERNET
    assert not follower.take()
    capture.complete()
    assert numbers(follower.take()) == [9]
    capture.write(3)
    assert numbers(follower.take()) == [10, 11, 12]
    capture.write(2)
    capture.close()
    capture.write(1)
    capture.close()
    capture.write(2)
    assert numbers(follower.take()) == [13, 14, 15, 16, 17]
    capture.write(1, cut=RECORD_HEADER)
    assert not numbers(follower.take())
    follower.close()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["write", "write", "close", "take", "cut", "other", "remove"]), max_size=30))
def test_in_any_order_of_events_each_packet_comes_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    store = tmp_path_factory.mktemp("followed") / "edge"
    capture, other = Capture(store), Capture(store, "eth1")
    follower = Follower(store, ("eth0",), "udp port 53")
    taken: list[int] = []
    wanted = 0
    for step in steps:
        match step:
            case "write":
                capture.write(3)
                capture.write(1, port=80)
                capture.sent -= 1
                wanted += 3
            case "cut":
                capture.write(1, cut=7)
                capture.complete()
                wanted += 1
            case "close":
                capture.close()
            case "take":
                taken += numbers(follower.take())
            case "other":
                other.write(2)
            case "remove":  # what was shown may go, and its number may be another file's then
                taken += numbers(follower.take())
                for path in capture.place.glob("*.pcap"):
                    path.unlink()
    taken += numbers(follower.take())
    assert taken == list(range(wanted))
    follower.close()
    held = [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]
    assert not [path for path in held if path.startswith(str(store))]


def test_a_capture_that_has_not_begun_is_waited_for(tmp_path: Path) -> None:
    store = tmp_path / "edge"
    store.mkdir()
    follower = Follower(store, (), "")
    before = follower.link_type
    assert before is None
    assert not follower.take()
    capture = Capture(store)
    (capture.place / segment_name(BEGIN - 1000, OPEN)).touch()
    assert not follower.take()
    (capture.place / segment_name(BEGIN - 1000, OPEN)).unlink()
    capture.write(2)
    assert numbers(follower.take()) == [0, 1]
    assert follower.link_type == traffic.ETHERNET
    follower.close()


def test_interfaces_of_different_link_types_cannot_be_one_stream(capture: Capture) -> None:
    store = capture.place.parent
    capture.write(1)
    tunnel = Capture(store, "tun0", traffic.RAW)
    tunnel.write(1)
    with pytest.raises(UsageError, match="tun0 has packets of another link type than eth0; name an --interface"):
        Follower(store, (), "")
    Follower(store, ("tun0",), "").close()
    follower = Follower(store, ("eth0",), "")
    follower.close()


def test_an_interface_of_another_link_type_that_comes_later_is_left_out_and_told_once(capture: Capture) -> None:
    capture.write(1)
    follower = Follower(capture.place.parent, (), "")
    tunnel = Capture(capture.place.parent, "tun0", traffic.RAW)
    tunnel.write(1)
    capture.write(1)
    assert numbers(follower.take()) == [1]
    tunnel.write(1)
    assert not follower.take()
    assert len(follower.notes) == 1
    follower.close()


def test_what_carries_the_stream_is_left_out(capture: Capture) -> None:
    capture.write(1)
    own = "not (host 10.0.0.1 and host 10.0.0.2 and udp port 53)"
    for expression in ("", "udp or vlan"):
        follower = Follower(capture.place.parent, (), expression, own)
        before = capture.sent
        capture.write(1)
        capture.write(1, port=80)
        assert numbers(follower.take()) == [before + 1]
        follower.close()


def test_a_wrong_filter_is_told_in_the_words_that_were_typed(capture: Capture) -> None:
    capture.write(1)
    with pytest.raises(UsageError, match=r'filter "tcp port": syntax error at its end'):
        Follower(capture.place.parent, (), "tcp port", "not host 10.0.0.1")
    with pytest.raises(UsageError, match=r'^filter "ip6 protochain 6": protochain follows .*; write ip6 proto'):
        Follower(capture.place.parent, (), "ip6 protochain 6")


def test_a_wrong_filter_is_told_before_there_is_a_packet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'filter "tcp port": syntax error at its end'):
        Follower(tmp_path, (), "tcp port")
