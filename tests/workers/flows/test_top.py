"""What was most: held against sums made one packet at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from agent.workers.flows import table
from agent.workers.flows.table import Table, together
from agent.workers.flows.top import Totals, described, largest, most
from agent.workers.index.build import chunk, kind_of
from agent.workers.index.headers import MARGIN
from tests.workers.flows import traffic
from tests.workers.flows.traffic import ACK, NOON, Packet, conversation, tcp, udp


def rows(packets: Sequence[Packet]) -> Table:
    data = traffic.savefile(packets)
    kind = kind_of(data[:24])
    assert kind is not None
    made = chunk(data[24:] + bytes(MARGIN), len(data) - 24, 24, kind)
    assert made is not None
    return table.of(made.flows, 0)


def totals(by: str, packets: Sequence[Packet], most_flows: int = 1_000_000) -> Totals:
    made = Totals(by, most_flows)  # type: ignore[arg-type]  # the words are the parameters below
    for start in range(0, len(packets), 500):
        made.add(rows(packets[start : start + 500]))
        made.flows()  # join, as a larger store would have it done
    return made


def top(by: str, packets: Sequence[Packet], number: int = 1000) -> list[dict[str, object]]:
    made = totals(by, packets)
    return described(made.by, most(made.groups(), number, "bytes"), made.flows())


def test_sums_by_host_are_those_of_the_packets_however_little_room_there_is() -> None:
    packets = traffic.mixed(3, 600)
    out: Counter[str] = Counter()
    back: Counter[str] = Counter()
    for source, destination, size in ends(packets):
        out[source] += size
        back[destination] += size
    for room in (1_000_000, 300):
        made = totals("host", packets, room)
        found = described("host", most(made.groups(), 1000, "bytes"), made.flows())
        assert {row["host"]: row["bytes_out"] for row in found if row["bytes_out"]} == out
        assert {row["host"]: row["bytes_in"] for row in found if row["bytes_in"]} == back
        assert bool(made.evicted) == (room == 300)
        assert made.octets == sum(len(packet.frame) for packet in packets)
        assert not made.left_out


def ends(packets: Sequence[Packet]) -> list[tuple[str, str, int]]:
    """Addresses of IP packets, read here once more."""
    import ipaddress

    found = []
    for _, frame in packets:
        place = 12
        while frame[place : place + 2] == b"\x81\x00":
            place += 4
        match frame[place : place + 2]:
            case b"\x08\x00":
                source, destination = frame[place + 14 : place + 18], frame[place + 18 : place + 22]
            case b"\x86\xdd":
                source, destination = frame[place + 10 : place + 26], frame[place + 26 : place + 42]
            case _:
                continue
        found.append((str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination)), len(frame)))
    return found


def test_sums_that_have_no_place_are_counted_as_left_out() -> None:
    packets = [
        Packet(NOON + number, udp(f"10.1.{number >> 8}.{number & 255}", 9, "10.0.0.1", 9)) for number in range(2000)
    ]
    made = totals("host", packets, 100)
    kept = made.groups()
    assert len(kept) <= 300
    assert made.left_out + int(kept.sums[:, 0].sum()) == 2 * made.octets
    (first, *_) = described("host", most(kept, 1, "bytes"), made.flows())
    assert first["host"] == "10.0.0.1" and first["bytes_in"] == made.octets


def test_by_pair_both_directions_are_told() -> None:
    packets = conversation(NOON, "10.0.0.9", 40000, "10.0.0.1", 80, 1000)
    (pair,) = top("pair", packets)
    assert (pair["a"], pair["b"], pair["packets_ab"], pair["packets_ba"], pair["flows"]) == (
        "10.0.0.1",
        "10.0.0.9",
        4,
        5,
        2,
    )
    assert pair["bytes_ab"] == 4 * 54 + 1000


def test_the_service_is_who_answered_the_handshake_and_else_has_the_lower_port() -> None:
    answered = conversation(NOON, "10.0.0.9", 1000, "10.0.0.1", 40000)
    earlier = [Packet(NOON, tcp("10.0.0.8", 900, "10.0.0.1", 40000, ACK))]  # the handshake was not seen
    guessed = [Packet(NOON, udp("10.0.0.1", 5353, "10.0.0.2", 50000))]
    found = {(row["protocol"], row["port"]): row for row in top("port", answered + earlier + guessed)}
    assert found.keys() == {("tcp", 40000), ("udp", 5353)}
    assert (found["tcp", 40000]["servers"], found["tcp", 40000]["clients"]) == (1, 2)
    assert found["udp", 5353]["packets_out"] == 1


def test_protocols_of_ip_and_of_the_link_stand_beside_each_other() -> None:
    packets = traffic.mixed(5, 300)
    found = {(row["protocol"], row["family"]): row["packets"] for row in top("proto", packets)}
    assert set(found) == {
        *(("tcp", "ipv4"), ("tcp", "ipv6"), ("udp", "ipv4"), ("udp", "ipv6"), ("icmp", "ipv4"), ("icmp6", "ipv6")),
        ("arp", "arp"),
    }
    assert sum(int(str(count)) for count in found.values()) == len(packets)


def test_peers_are_other_addresses() -> None:
    packets = [
        Packet(NOON, udp("10.0.0.1", 1, "10.0.0.2", 2)),
        Packet(NOON, udp("10.0.0.3", 1, "10.0.0.1", 2)),
        Packet(NOON, udp("10.0.0.1", 1, "10.0.0.1", 2)),
    ]
    found = {row["host"]: (row["flows"], row["peers"]) for row in top("host", packets)}
    assert found == {"10.0.0.1": (3, 2), "10.0.0.2": (1, 1), "10.0.0.3": (1, 1)}


@pytest.mark.parametrize("sort", ["bytes", "packets", "flows"])
def test_the_largest_come_first_and_equals_in_the_order_of_their_keys(sort: str) -> None:
    packets = traffic.mixed(8, 400)
    made = totals("host", packets)
    found = described("host", most(made.groups(), 1000, sort), made.flows())  # type: ignore[arg-type]  # a parameter
    assert [row[sort] for row in found] == sorted((row[sort] for row in found), reverse=True)
    few = described("host", most(made.groups(), 7, sort), made.flows())  # type: ignore[arg-type]  # a parameter
    assert few == found[:7]


def test_of_flows_the_largest_come_first() -> None:
    flows = totals("flow", traffic.mixed(9, 200)).flows()
    chosen = largest(flows, 10, "bytes")
    assert chosen.octets.tolist() == np.sort(flows.octets)[::-1][:10].tolist()
    assert len(largest(together([flows, flows]), 10**6, "packets")) == 2 * len(flows)
