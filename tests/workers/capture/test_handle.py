"""libpcap handles, on this host's loopback."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.workers.capture import dumper
from agent.workers.capture.handle import Handle, Options, device_drops
from tests.workers.capture.lab import packets


class Talk:
    """A UDP socket on loopback, a filter for what is sent to it, and a way to send there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._address = self._socket.getsockname()
        self.filter = f"udp dst port {self._address[1]}"

    def say(self, number: int, size: int = 32) -> None:
        for index in range(number):
            self._socket.sendto(index.to_bytes(4, "big") * (size // 4), self._address)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.close()


@pytest.fixture
def handle(talk: Talk) -> Iterator[Handle]:
    made = Handle("lo", options(talk.filter))
    yield made
    made.close()


def options(text: str, snaplen: int = 262_144, ring: int = 2**21) -> Options:
    return Options(snaplen=snaplen, promiscuous=False, ring=ring, filter=text)


def take(handle: Handle, target: dumper.Dumper, wanted: int) -> None:
    """Read until that many packets came."""
    until = time.monotonic() + 10
    while wanted > 0:
        assert select.select([handle.fd], [], [], max(0.0, until - time.monotonic()))[0], f"{wanted} never came"
        done = handle.dispatch(target.user, 1000)
        target.note(done)
        wanted -= done


def test_reading_an_idle_interface_does_not_block(handle: Handle, tmp_path: Path) -> None:
    target = dumper.Dumper(handle, tmp_path / "a.part", 0)
    began = time.monotonic()
    assert handle.dispatch(target.user, 100) == 0
    assert time.monotonic() - began < 0.1
    target.close()


def test_each_packet_on_loopback_is_received_once(handle: Handle, talk: Talk, tmp_path: Path) -> None:
    target = dumper.Dumper(handle, tmp_path / "a.part", 0)
    talk.say(500)
    take(handle, target, 500)
    assert handle.dispatch(target.user, 100) == 0
    assert target.flush() == 500
    assert handle.statistics() == (500, 0)
    target.close()
    assert [packet.data[-4:] for packet in packets(target.path)] == [n.to_bytes(4, "big") for n in range(500)]


def test_a_read_stops_at_the_count_and_goes_on_there(handle: Handle, talk: Talk, tmp_path: Path) -> None:
    target = dumper.Dumper(handle, tmp_path / "a.part", 0)
    talk.say(20)
    assert select.select([handle.fd], [], [], 10)[0]
    first = handle.dispatch(target.user, 7)
    target.note(first)
    assert first == 7
    take(handle, target, 13)
    target.flush()
    target.close()
    assert len(packets(target.path)) == 20


def test_a_sealed_handle_still_gives_what_was_stored_and_nothing_new(
    handle: Handle, talk: Talk, tmp_path: Path
) -> None:
    target = dumper.Dumper(handle, tmp_path / "a.part", 0)
    talk.say(10)
    handle.seal()
    talk.say(10)
    take(handle, target, 10)
    assert handle.dispatch(target.user, 100) == 0
    target.close()


def test_the_kernel_cuts_to_the_snaplen_without_a_filter_too(talk: Talk, tmp_path: Path) -> None:
    """The ring holds them all only as they are cut before they come into it: libpcap would cut them after that."""
    handle = Handle("lo", options("", snaplen=50, ring=2**24))
    target = dumper.Dumper(handle, tmp_path / "a.part", 0)
    talk.say(4_000, size=8_000)
    received, dropped = handle.statistics()
    assert (received >= 4_000, dropped) == (True, 0)  # lo has other packets too
    take(handle, target, 4_000)
    target.flush()
    target.close()
    handle.close()
    assert max(packet.captured for packet in packets(target.path)) == 50


def test_an_interface_that_does_not_exist_is_a_mistake_that_names_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"interface nosuch0 does not exist; this host has .*\blo\b"):
        Handle("nosuch0", options(""))


@pytest.mark.parametrize("name", ["dbus-system", "dbus-session", "dbus://unix:path=/run/dbus/system_bus_socket"])
def test_a_message_bus_is_no_interface(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"interface {name}: libpcap takes this name for a message bus"):
        Handle(name, options(""))


@pytest.mark.parametrize("text", ["udp prot 5", "(((", "host", "ether[0] = " + "9" * 30])
def test_a_filter_that_is_none_is_a_mistake(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^lo: filter "):
        Handle("lo", options(text))


def test_a_filter_too_long_for_the_kernel_is_a_mistake() -> None:
    hosts = " or ".join(f"host ::{number}" for number in range(270))
    with pytest.raises(ConfigurationError, match="instructions, and the kernel takes at most 4096"):
        Handle("lo", options(hosts))


def test_closing_twice_does_no_harm(talk: Talk) -> None:
    made = Handle("lo", options(talk.filter))
    made.close()
    made.close()


def test_drops_of_a_device_are_known_where_something_counts_them() -> None:
    assert device_drops("lo") == 0
    assert device_drops("nosuch0") is None
