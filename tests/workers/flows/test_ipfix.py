"""Messages of IPFIX: read back here by the letter of RFC 7011, and by tshark."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import Any

import numpy as np

from agent.workers.flows import ended, ipfix
from agent.workers.flows.lines import iso
from agent.workers.index.model import IPV4, IPV6
from tests.workers.flows import traffic
from tests.workers.flows.peers import tshark
from tests.workers.flows.test_top import rows
from tests.workers.flows.traffic import NOON, Packet

INTERFACES, HEADERS = np.array([7], np.uint32), np.array([14], np.uint64)


def sent(packets: list[Packet], of: ipfix.Domain) -> list[bytes]:
    records = ended.segment(rows(packets), NOON)
    messages = [ipfix.template_message(of, 1000)]
    for family in (IPV4, IPV6):
        data = ipfix.encoded(records, family, INTERFACES, HEADERS)
        messages += [message for message, _ in ipfix.messages(of, family, data, lambda: 1000)]
    return messages


def parsed(messages: list[bytes]) -> list[dict[int, int]]:
    """Records by element number, after what RFC 7011 says of headers, sets and sequence numbers has been checked."""
    templates: dict[int, list[tuple[int, int]]] = {}
    records: list[dict[int, int]] = []
    for message in messages:
        version, length, _, sequence, _ = struct.unpack_from("!HHIII", message)
        assert (version, length) == (10, len(message))
        assert sequence == len(records)
        place = 16
        while place < length:
            identifier, size = struct.unpack_from("!HH", message, place)
            body = message[place + 4 : place + size]
            place += size
            while identifier == 2 and body:
                number, count = struct.unpack_from("!HH", body)
                fields = [struct.unpack_from("!HH", body, 4 + 4 * field) for field in range(count)]
                templates[number] = fields
                body = body[4 + 4 * count :]
            while body:
                record = {}
                for element, width in templates[identifier]:
                    record[element] = int.from_bytes(body[:width], "big")
                    body = body[width:]
                records.append(record)
        assert place == length
    return records


def test_every_record_says_what_its_flow_is() -> None:
    packets = [
        *traffic.conversation(NOON, "10.0.0.1", 40000, "10.0.0.2", 443, 1000),
        Packet(NOON + 10**9, traffic.udp("2001:db8::1", 5000, "2001:db8::2", 53, 100, vlans=[7])),
        Packet(NOON + 2 * 10**9, traffic.icmp("10.0.0.1", "10.0.0.2", 3, 1)),
        Packet(NOON, traffic.arp("10.0.0.1", "10.0.0.2")),
    ]
    found = parsed(sent(packets, ipfix.Domain(5)))
    assert len(found) == 4
    by_ports = {(record[4], record[7]): record for record in found}
    there, six, message = by_ports[6, 40000], by_ports[17, 5000], by_ports[1, 0]
    assert there[8] == int(ipaddress.ip_address("10.0.0.1")) and there[12] == int(ipaddress.ip_address("10.0.0.2"))
    assert (there[11], there[2], there[1], there[352]) == (443, 5, 4 * 40 + 160, 5 * 54 + 120)
    assert (there[152], there[153]) == (NOON // 10**6, NOON // 10**6 + 70)
    assert there[6] == traffic.SYN | traffic.ACK | traffic.PUSH | traffic.FIN
    assert (there[10], there[136], there[60]) == (7, ended.END_OF_FLOW, 4)
    assert six[27] == int(ipaddress.ip_address("2001:db8::1")) and six[28] == int(ipaddress.ip_address("2001:db8::2"))
    assert (six[58], six[1], six[352], six[60]) == (7, 148, 166, 6)
    assert (message[32], message[7], message[11]) == (3 << 8 | 1, 0, 0)


def test_messages_are_short_and_their_sequence_counts_the_records_before_them() -> None:
    packets = traffic.mixed(11, 400)
    of = ipfix.Domain(5)
    messages = sent(packets, of)
    assert max(map(len, messages)) <= ipfix.LONGEST
    assert len(parsed(messages)) == of.sequence
    ends = ipfix.Domain(5, 2**32 - 1)
    list(ipfix.messages(ends, IPV4, np.zeros(3, ipfix._FORMS[IPV4]), lambda: 0))
    assert ends.sequence == 2


def test_tshark_finds_nothing_wrong_and_reads_the_same(tmp_path: Path) -> None:
    packets = traffic.mixed(12, 120)
    messages = sent(packets, ipfix.Domain(5))
    carried = [
        Packet(NOON + number, traffic.ip("10.9.9.9", "10.9.9.8", traffic.UDP, datagram(message)))
        for number, message in enumerate(messages)
    ]
    path = tmp_path / "ipfix.pcap"
    path.write_bytes(traffic.savefile(carried))
    names = ("cflow.version", "cflow.sequence", "cflow.od_id", "_ws.expert.message", "_ws.malformed")
    heads = tshark(path, *names)
    assert {(version, domain, wrong, bad) for version, _, domain, wrong, bad in heads} == {("10", "5", "", "")}
    read = every(path, "cflow.srcaddr", "cflow.srcaddrv6", "cflow.packets", "cflow.abstimestart")
    expected = parsed(messages)
    assert sum(map(int, read["cflow.packets"])) == sum(record[2] for record in expected)
    assert len(read["cflow.srcaddr"]) == sum(8 in record for record in expected)
    assert read["cflow.srcaddrv6"] == [str(ipaddress.IPv6Address(record[27])) for record in expected if 27 in record]
    starts = [iso(record[152] * 10**6)[:23] for record in expected]
    assert [text.replace("T", " ")[:23] for text in starts] == [utc(text) for text in read["cflow.abstimestart"]]


def datagram(message: bytes) -> bytes:
    return struct.pack("!HHHH", 40000, 4739, 8 + len(message), 0) + message


def every(path: Path, *names: str) -> dict[str, list[str]]:
    """All occurrences of fields in all packets."""
    import subprocess

    fields = [part for name in names for part in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "aggregator=|", *fields],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    found: dict[str, list[str]] = {name: [] for name in names}
    for line in done.stdout.splitlines():
        for name, cell in zip(names, line.split("\t"), strict=True):
            found[name] += cell.split("|") if cell else []
    return found


def utc(text: str) -> str:
    """``Nov 20, 2026 14:00:00.157000000 UTC`` as ``2026-11-20 14:00:00.157``."""
    from datetime import datetime

    assert text.endswith("UTC"), text
    return datetime.strptime(text[:-7].strip(), "%b %d, %Y %H:%M:%S.%f").isoformat(" ", "milliseconds")


def test_a_domain_is_the_same_every_day_and_never_0() -> None:
    assert ipfix.domain("edge", "eth0") == ipfix.Domain(622345453)
    assert ipfix.domain("edge", "eth0").number != ipfix.domain("edge", "eth1").number


def test_octets_are_those_of_ip_as_far_as_the_link_header_goes() -> None:
    table: Any = rows([Packet(NOON, traffic.udp("10.0.0.1", 1, "10.0.0.2", 2, 0, vlans=[3, 4]))])
    (record,) = ipfix.encoded(ended.segment(table, NOON), IPV4, INTERFACES, HEADERS)
    assert (record["octetDeltaCount"], record["layer2OctetDeltaCount"], record["vlanId"]) == (28, 50, 3)
