"""The answer is what tcpdump finds in all segments, packet for packet, in order of time."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import AgentError, UsageError
from agent.workers.retrieval.answer import Answer, Limits
from agent.workers.retrieval.offline import Packet
from agent.workers.retrieval.offline import packets as packets_of
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN, index, joined, segment, tcpdump

SECOND = 1_000_000_000

EXPRESSIONS = [
    *("", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "not ip", "not ip6", "igmp or esp or ah"),
    *("host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.2", "src and dst host 10.0.0.1", "not host 10.0.0.1"),
    *("host 10.1.2.3 and port 80", "host 10.0.0.2 and (port 80 or 443)", "net 10", "net 10.1", "net 10.0.0.0/15"),
    *("src net 192.168.0.0/16", "net 10.0.0.0 mask 255.254.0.0", "not net 10 and not net 192.168.0.0/16"),
    *("port 53", "src port 53", "dst port 22", "src and dst port 443", "port 22 or 80 or 443", "portrange 50-100"),
    *("tcp port 80", "udp dst port 53", "sctp port 22", "tcp and not port 22", "port domain", "not port 80"),
    *("host fe80::1", "ip6 src host 2001:db8::7", "net fe80::/10", "ip6 net ::/0", "host ::1 or 10.0.0.1"),
    *("arp host 10.0.0.1", "rarp or arp dst host 10.0.0.2", "ether proto 0x88cc", r"ether proto \arp", "ip proto gre"),
    *("proto 17", r"ip proto \udp", "ip6 proto 6", "ip6 proto 44", "ip6 proto 0", "ip proto 89", "ip proto 136"),
    *("vlan", "vlan 5", "vlan and host 10.0.0.1", "vlan 7 and tcp port 80", "vlan and vlan", "vlan and vlan 7 and ip6"),
    *("not vlan", "vlan or host 10.0.0.1", "host 10.0.0.1 or vlan 5", "not (vlan and port 53)"),
    *("tcp[tcpflags] & tcp-syn != 0", "tcp[13] = 0x12 and port 80", "ip[6:2] & 0x1fff != 0", "ip[8] < 65 and udp"),
    *(
        "less 60",
        "greater 100",
        "len >= 60 and tcp",
        "ether broadcast",
        "ip broadcast",
        "ip multicast or ip6 multicast",
    ),
    *("mpls", "mpls 100", "mpls and host 10.0.0.1", "pppoes and ip", "ether host 2:0:0:0:0:1", "udp[0:2] = 53"),
    *("host 10.0.0.1 and not (port 22 or arp)", "(ip[0] & 0xf) * 4 > 20", "portrange 440-4790 and not ip6"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two interfaces whose segments overlap: indexed, not, with an empty index, open with a tail and without."""
    place = tmp_path_factory.mktemp("store") / "edge"
    random = Random(11)
    for number, interface in enumerate(("eth0", "eth1", "eth0", "eth1", "eth0", "eth0", "eth1")):
        count = 9000 if number in (0, 5) else 1000
        sent = traffic.packets(random, count, begin=BEGIN + number * SECOND // 2, step=900_000_000 // count)
        swapped = [sent[each ^ 1] if each % 7 == 0 else sent[each] for each in range(len(sent) - 1)]
        path = segment(place, interface, list(dict.fromkeys(swapped)), closed=number < 5)
        if number < 3:
            index(path)
        elif number == 3:
            path.with_suffix(".idx").touch()
        elif number == 5:
            index_of_the_begin(path)
    return place


def index_of_the_begin(path: Path) -> None:
    """A tail that tells about the first third of an open segment."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    index(path)
    path.with_suffix(".idx").rename(path.with_suffix(".tail"))
    path.write_bytes(whole)


def answered(answer: Answer) -> list[Packet]:
    """All packets of an answer, which are the same whichever way they are taken from it."""
    found: list[Packet] = []
    for run in answer.runs():
        found += [run.batch.packet(number) for number in range(run.begin, run.end)]
        assert found[-(run.end - run.begin) :] == list(packets_of(run.batch.stretch(run.begin, run.end)))
    answer.close()
    return found


def expected(store: Path, expression: str, scratch: Path) -> list[Packet]:
    """Stable in time: packets of one instant in the order of their segments."""
    everything = store.with_name("all.pcap")
    if not everything.exists():
        joined(store, everything)
    return sorted(tcpdump(everything, expression, scratch), key=lambda packet: packet.time)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_answer_is_what_tcpdump_finds(store: Path, tmp_path: Path, expression: str) -> None:
    wanted = expected(store, expression, tmp_path / "out")
    assert answered(Answer([store], expression)) == wanted


def test_the_expressions_are_enough_and_mean_something(store: Path) -> None:
    assert len(EXPRESSIONS) >= 60
    counts = [len(answered(Answer([store], expression))) for expression in EXPRESSIONS[::5]]
    assert all(count > 0 for count in counts)


@pytest.mark.parametrize("expression", ["", "port 53", "ip[8] = 64", "host 10.1.2.3 and dst port 22"])
@pytest.mark.parametrize(("first", "last"), [(0.0, 0.2), (0.7, 0.7001), (1.0, 3.0), (2.9, 9.0), (7.0, 9.0)])
def test_of_a_span_of_time_every_packet_is_found(
    store: Path, tmp_path: Path, expression: str, first: float, last: float
) -> None:
    begin, end = (BEGIN + round(second * SECOND) for second in (first, last))
    wanted = [packet for packet in expected(store, expression, tmp_path / "out") if begin <= packet.time <= end]
    assert answered(Answer([store], expression, within=(begin, end))) == wanted


def test_only_the_interfaces_that_are_named_are_asked(store: Path, tmp_path: Path) -> None:
    found = answered(Answer([store], "tcp", interfaces=("eth1",)))
    assert found
    assert len(found) < len(answered(Answer([store], "tcp")))


def test_an_index_saves_reading_what_cannot_be_meant(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "edge"
    path = segment(place, "eth0", traffic.packets(Random(3), 50_000, begin=BEGIN))
    without = Answer([place], "src host 10.1.2.3 and dst host 10.0.0.2 and udp src port 53")
    wanted = answered(without)
    index(path)
    narrowed = Answer([place], "src host 10.1.2.3 and dst host 10.0.0.2 and udp src port 53")
    assert answered(narrowed) == wanted
    assert wanted
    assert without.read > path.stat().st_size
    later = Answer([place], "tcp", within=(BEGIN + SECOND, BEGIN + 2 * SECOND))
    assert not answered(later)
    assert not later.read


def test_a_limit_ends_the_answer_and_is_told(store: Path) -> None:
    everything = answered(Answer([store], "ip"))
    few = Answer([store], "ip", limits=Limits(packets=100))
    assert answered(few) == everything[:100]
    assert (few.stopped, few.packets) == ("packets", 100)
    small = Answer([store], "ip", limits=Limits(octets=5000))
    found = answered(small)
    assert found == everything[: len(found)]
    assert small.stopped == "bytes"
    assert 4000 < sum(len(packet.data) for packet in found) == small.octets <= 5000
    exact = Answer([store], "ip", limits=Limits(packets=len(everything)))
    assert (len(answered(exact)), exact.stopped) == (len(everything), None)


@pytest.mark.parametrize("looks", [0, 1, 3, 8, 30])
def test_what_is_given_until_the_time_is_over_is_whole_up_to_where_it_says(store: Path, looks: int) -> None:
    everything = answered(Answer([store], "ip"))
    clock = itertools.chain([0.0], [1.0] * looks, itertools.repeat(70.0))
    slow = Answer([store], "ip", limits=Limits(seconds=60), clock=lambda: next(clock))
    found = answered(slow)
    assert slow.stopped == "time"
    assert found == everything[: len(found)]
    assert looks < 30 or 0 < len(found) < len(everything)
    assert all(packet.time >= (slow.reached or 0) for packet in everything[len(found) :])


def test_clocks_that_are_set_back_lose_nothing(tmp_path: Path) -> None:
    """What is named by a later time holds packets of an earlier one."""
    place = tmp_path / "edge"
    forth = traffic.packets(Random(1), 5000, begin=BEGIN + 3600 * SECOND)
    back = traffic.packets(Random(2), 5000, begin=BEGIN)
    path = segment(place, "eth0", forth + back)
    os.utime(path, ns=(0, BEGIN + 10 * SECOND))  # a clock that is set ends the segment
    segment(place, "eth0", traffic.packets(Random(3), 100, begin=BEGIN + SECOND))
    for _ in range(2):
        found = answered(Answer([place], "", within=(BEGIN, BEGIN + 10 * SECOND)))
        assert found[:5000] == back
        assert len(found) == 5100
        index(path)


def test_a_wrong_expression_is_told_before_anything_is_read(store: Path, tmp_path: Path) -> None:
    for place in (store, tmp_path / "empty"):
        with pytest.raises(UsageError, match="syntax error at its end"):
            Answer([place], "host 10.0.0.1 and")


def test_what_an_expression_cannot_mean_for_one_interface_is_left_out_and_told(tmp_path: Path) -> None:
    place = tmp_path / "edge"
    segment(place, "eth0", traffic.packets(Random(1), 2000, begin=BEGIN))
    segment(place, "tun0", traffic.packets(Random(1), 2000, traffic.RAW, begin=BEGIN), link_type=traffic.RAW)
    answer = Answer([place], "ether host 2:0:0:0:0:1 or tcp")
    assert answer.link_types() == {"eth0": 1, "tun0": 101}
    assert answered(answer)
    (note,) = answer.notes
    assert note.startswith("tun0 is left out: ")


@pytest.mark.parametrize("indexed", [True, False])
def test_what_is_damaged_is_told_and_the_rest_is_found(tmp_path: Path, indexed: bool) -> None:
    place = tmp_path / "edge"
    sent = traffic.packets(Random(1), 2000, begin=BEGIN)
    path = segment(place, "eth0", sent)
    with path.open("ab") as file:
        file.write(b"\xff" * 500)
    if indexed:
        index(path)
    segment(place, "eth1", sent[:3]).write_bytes(b"no pcap file, though it is called so")
    answer = Answer([place], "")
    assert answered(answer) == sent
    assert sorted(note.split(": ", 1)[1] for note in answer.notes) == [
        f"at byte {path.stat().st_size - 500}: what follows makes no sense",
        "no pcap file",
    ]


@pytest.mark.parametrize("lie", [b"agentidx" + b"\xff" * 100, b"rubbish" * 100, b"agentidx\x09\0\0\0" + bytes(100)])
def test_an_index_that_makes_no_sense_is_done_without(tmp_path: Path, lie: bytes) -> None:
    place = tmp_path / "edge"
    sent = traffic.packets(Random(1), 2000, begin=BEGIN)
    segment(place, "eth0", sent).with_suffix(".idx").write_bytes(lie)
    answer = Answer([place], "")
    assert answered(answer) == sent
    assert "searched without it" in answer.notes[0]


def test_packets_that_are_removed_meanwhile_are_told(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "edge"
    gone = segment(place, "eth0", traffic.packets(Random(1), 3000, begin=BEGIN))
    index(gone)
    kept = traffic.packets(Random(2), 300, begin=BEGIN + SECOND)
    segment(place, "eth0", kept)
    answer = Answer([place], "")
    gone.unlink()
    assert answered(answer) == kept
    assert answer.notes == [f"{gone}: removed while it was searched"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_no_damage_to_a_segment_or_its_index_is_more_than_a_line(damaged: tuple[Path, bytes, bytes], seed: int) -> None:
    path, packets, lookup = damaged
    random = Random(seed)
    contents = [bytearray(packets), bytearray(lookup)]
    for content in random.sample(contents, random.choice((1, 2))):
        for _ in range(random.choice((1, 3, 30))):
            place = random.choice((random.randrange(len(content)), random.randrange(600), -1 - random.randrange(400)))
            content[place : place + 4 or None] = random.choice((b"\xff" * 4, bytes(4), random.randbytes(4)))
        if random.random() < 0.3:
            del content[random.randrange(len(content)) :]
    path.write_bytes(contents[0])
    path.with_suffix(".idx").write_bytes(contents[1])
    with suppress(AgentError):
        answer = Answer([path.parent.parent], random.choice(("", "port 53", "host 10.0.0.1", "tcp[13] & 2 != 0")))
        assert all(packet.data is not None for packet in answered(answer))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    """Where a segment is, and what is in it and in its index."""
    path = segment(tmp_path_factory.mktemp("damaged") / "edge", "eth0", traffic.packets(Random(1), 1500, begin=BEGIN))
    index(path)
    return path, path.read_bytes(), path.with_suffix(".idx").read_bytes()
