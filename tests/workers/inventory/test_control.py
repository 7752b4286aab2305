"""The filter chooses what tshark calls the same, under tags and on other links too; and the message is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.workers.inventory.control import COOKED, COOKED_V2, ETHERNET, FILTERS, RAW, frame, hasty_kind
from agent.workers.retrieval.offline import Filter
from agent.workers.retrieval.offline import packets as records
from tests.workers.inventory.lab import Lab, Packet, fields, packets, write

CONTROL = (
    "arp or lldp or dhcp or dhcpv6 or mdns or (dns and udp.srcport == 53 and dns.flags.response == 1)"
    " or (icmpv6.type >= 133 and icmpv6.type <= 136) or tls.handshake.type == 1"
)


def chosen(path: Path, link_type: int) -> list[bytes]:
    """The packets that pass the filter."""
    fd = os.open(path, os.O_RDONLY)
    try:
        passing = Filter(os.pread(fd, 24, 0), FILTERS[link_type])
        return [packet.data for piece in passing.scan(fd, 24, path.stat().st_size) for packet in records(piece)]
    finally:
        os.close(fd)


def tagged(data: bytes, *tags: bytes) -> bytes:
    return data[:12] + b"".join(tags) + data[12:]


def under(link_type: int, data: bytes) -> bytes:
    """An Ethernet frame as it would be on another link."""
    if link_type == COOKED:
        return b"\0\0\0\1\0\6" + data[6:12] + b"\0\0" + data[12:]
    if link_type == COOKED_V2:
        return data[12:14] + b"\0\0\0\0\0\1\0\1\0\6" + data[6:12] + b"\0\0" + data[14:]
    return data[14:]


def test_the_filter_chooses_what_tshark_calls_by_these_names(lab: Lab) -> None:
    everything = packets(lab.path)
    numbers = [int(number) for (number,) in fields(lab.path, CONTROL, "frame.number")]
    assert chosen(lab.path, ETHERNET) == [everything[number - 1].data for number in numbers]
    assert len(numbers) < len(everything), "there is nothing else in there"


@pytest.mark.parametrize(
    "tags", [[b"\x81\0\x20\x07"], [b"\x88\xa8\x00\x09", b"\x81\0\x20\x07"]], ids=["802.1Q", "QinQ"]
)
def test_tags_make_no_difference_but_for_the_vlan(lab: Lab, tags: list[bytes], tmp_path: Path) -> None:
    plain = chosen(lab.path, ETHERNET)
    marked = [tagged(data, *tags) for data in plain]
    path = write(tmp_path / "tagged.pcap", [Packet(0, data) for data in marked])
    assert chosen(path, ETHERNET) == marked
    vlan = int.from_bytes(tags[0][2:]) & 0xFFF
    for before, after in zip(plain, marked, strict=True):
        found = frame(ETHERNET, before)
        assert found is not None
        assert frame(ETHERNET, after) == found._replace(vlan=vlan)


@pytest.mark.parametrize("link_type", [RAW, COOKED, COOKED_V2])
def test_on_links_without_ethernet_the_same_is_found_as_far_as_it_goes(
    lab: Lab, link_type: int, tmp_path: Path
) -> None:
    plain = [data for data in chosen(lab.path, ETHERNET) if data[12:14] != b"\x88\xcc"]
    if link_type == RAW:
        plain = [data for data in plain if data[12:14] != b"\x08\x06"]
    other = [under(link_type, data) for data in plain]
    path = write(tmp_path / "other.pcap", [Packet(0, data) for data in other], link_type)
    assert chosen(path, link_type) == other
    for before, after in zip(plain, other, strict=True):
        found = frame(ETHERNET, before)
        assert found is not None
        mac = "" if link_type == RAW else found.mac
        assert frame(link_type, after) == found._replace(mac=mac, target_mac="")


def test_the_hasty_look_agrees_with_the_full_one(lab: Lab) -> None:
    kinds = []
    for data in chosen(lab.path, ETHERNET):
        found = frame(ETHERNET, data)
        assert found is not None
        hasty = hasty_kind(ETHERNET, data)
        assert hasty in (None, found.kind)
        kinds.append(hasty)
    assert {"arp", "dns", "tls"} <= set(kinds)


@pytest.mark.parametrize("link_type", [*FILTERS, 0, 105])
def test_whatever_is_cut_short_or_of_another_kind_has_no_message_or_a_shorter_one(lab: Lab, link_type: int) -> None:
    for data in chosen(lab.path, ETHERNET):
        for length in range(len(data)):
            found = frame(link_type, data[:length])
            assert found is None or len(found.payload) <= length


def test_what_a_router_has_passed_on_is_no_neighbour_discovery(lab: Lab) -> None:
    solicitation = next(data for data in chosen(lab.path, ETHERNET) if data[20:22] == b"\x3a\xff")
    assert frame(ETHERNET, solicitation) is not None
    assert frame(ETHERNET, solicitation[:21] + b"\xfe" + solicitation[22:]) is None
