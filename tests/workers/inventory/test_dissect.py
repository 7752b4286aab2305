"""What real programs say is understood as tshark understands it; and no packet, however bad, does any harm."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.inventory.control import ETHERNET, FILTERS, Frame, frame
from agent.workers.inventory.dissect import LONGEST, MOST, Crashed, TooLong, sightings, tell
from agent.workers.inventory.sighting import (
    ARP,
    CHASSIS,
    CLIENT,
    DHCP,
    DHCPV6,
    DNS,
    INSTANCE,
    LLDP,
    MANAGEMENT,
    MDNS,
    NAME,
    ND,
    PORT,
    ROLE,
    SEEN,
    SERVICE,
    SYSTEM,
    TLS,
    Sighting,
    unicast,
)
from tests.workers.inventory.lab import (
    CLIENT_LINK,
    CLIENT_MAC,
    SERVER,
    SERVER6,
    SERVER_LINK,
    SERVER_MAC,
    Lab,
    fields,
    packets,
)

Told = tuple[str, str, str, str]


def told(lab: Lab, source: str) -> list[Sighting]:
    """Everything that was told by one source in the capture."""
    return [
        sighting
        for packet in packets(lab.path)
        for sighting in sightings(ETHERNET, packet.data, packet.time)
        if sighting.source == source
    ]


def short(found: Iterable[Sighting]) -> set[Told]:
    return {(sighting.mac, sighting.address, sighting.fact, sighting.value) for sighting in found}


def test_arp_says_who_has_which_address(lab: Lab) -> None:
    expected = {
        (mac, address, SEEN, "") for mac, address in fields(lab.path, "arp", "arp.src.hw_mac", "arp.src.proto_ipv4")
    }
    assert short(told(lab, ARP)) == expected
    assert (CLIENT_MAC, lab.client, SEEN, "") in expected


def test_nd_says_who_has_which_address_and_who_is_a_router(lab: Lab) -> None:
    expected = set()
    rows = fields(lab.path, "icmpv6.type == 133 or icmpv6.type == 134 or icmpv6.type == 135", "eth.src", "ipv6.src")
    expected |= {(mac, unicast(address), SEEN, "") for mac, address in rows}
    targets = fields(lab.path, "icmpv6.type == 136", "eth.src", "icmpv6.nd.na.target_address")
    expected |= {(mac, address, SEEN, "") for mac, address in targets}
    expected |= {
        (mac, address, ROLE, "router") for mac, address in fields(lab.path, "icmpv6.type == 134", "eth.src", "ipv6.src")
    }
    assert short(told(lab, ND)) == expected
    assert (SERVER_MAC, SERVER6, SEEN, "") in expected


def test_dhcp_says_the_clients_names_and_what_it_was_given(lab: Lab) -> None:
    assert fields(lab.path, "dhcp.option.dhcp == 5", "dhcp.ip.your", "dhcp.hw.mac_addr") == [(lab.client, CLIENT_MAC)]
    assert short(told(lab, DHCP)) == {
        (CLIENT_MAC, "", SEEN, ""),
        (CLIENT_MAC, lab.client, SEEN, ""),
        (CLIENT_MAC, "", NAME, "printer"),
        (CLIENT_MAC, "", NAME, "printer.lab.test"),
        ("", SERVER, ROLE, "dhcp server"),
    }


def test_dhcpv6_says_the_same_and_by_what_the_client_is_known(lab: Lab) -> None:
    ((duid,),) = set(fields(lab.path, "dhcpv6.msgtype == 1", "dhcpv6.duid.bytes"))
    assert short(told(lab, DHCPV6)) == {
        (CLIENT_MAC, CLIENT_LINK, SEEN, ""),
        (CLIENT_MAC, lab.client6, SEEN, ""),
        (CLIENT_MAC, "", NAME, "printer.lab.test"),
        *((CLIENT_MAC, "", NAME, name) for (_, _, fact, name) in short(told(lab, DHCPV6)) if name == "printer"),
        (CLIENT_MAC, "", CLIENT, duid.replace(":", "")),
        (SERVER_MAC, SERVER_LINK, SEEN, ""),
        (SERVER_MAC, SERVER_LINK, ROLE, "dhcpv6 server"),
    }


def test_dns_answers_name_addresses_as_the_asker_was_told(lab: Lab) -> None:
    answers = fields(
        lab.path, "dns.flags.response == 1 and udp.srcport == 53", "ip.dst", "dns.qry.name", "dns.a", "dns.aaaa"
    )
    expected = {(asker, name, a or aaaa) for asker, name, a, aaaa in answers}
    found = told(lab, DNS)
    assert {(sighting.asker, sighting.value, sighting.address) for sighting in found} == expected
    assert expected == {(lab.client, "www.lab.test", SERVER), (lab.client, "www.lab.test", SERVER6)}


def test_mdns_tells_names_and_services_of_the_sender(lab: Lab) -> None:
    found = short(told(lab, MDNS))
    assert ("", lab.client, NAME, "printer.local") in found
    assert ("", lab.client6, NAME, "printer.local") in found
    (_, port), *_ = fields(lab.path, "dns.flags.response == 1 and dns.srv.port", "dns.srv.name", "dns.srv.port")
    services = {(address, value) for _, address, fact, value in found if fact == SERVICE}
    assert services
    assert services <= {(lab.client, f"tcp/{port}"), (lab.client6, f"tcp/{port}")}
    assert {value for *_, fact, value in found if fact == INSTANCE} == {"Printer in the hall._ipp._tcp"}
    assert {(mac, address) for mac, address, fact, _ in found if fact == SEEN} == {
        (CLIENT_MAC, lab.client),
        (CLIENT_MAC, lab.client6),
    }


def test_lldp_tells_what_is_at_the_other_end_of_the_cable(lab: Lab) -> None:
    asked = (
        "lldp.tlv.system.name",
        "lldp.tlv.system.desc",
        "lldp.chassis.id.mac",
        "lldp.port.id.mac",
        "lldp.mgn.addr.ip4",
    )
    (name, system, chassis, port, management), *_ = fields(lab.path, "lldp", *asked)
    found = short(told(lab, LLDP))
    assert {(SERVER_MAC, "", SEEN, ""), (SERVER_MAC, "", NAME, name), (SERVER_MAC, "", SYSTEM, system)} <= found
    assert {(SERVER_MAC, "", CHASSIS, chassis), (SERVER_MAC, "", PORT, port)} <= found
    assert (SERVER_MAC, "", MANAGEMENT, management) in found


def test_a_client_hello_names_the_server(lab: Lab) -> None:
    hellos = fields(lab.path, "tls.handshake.type == 1", "ip.dst", "ipv6.dst", "tls.handshake.extensions_server_name")
    found = {(sighting.address, sighting.value) for sighting in told(lab, TLS)}
    assert found == {(four or six, name) for four, six, name in hellos}
    assert found == {(SERVER, "www.lab.test"), (SERVER6, "six.lab.test")}
    assert {sighting.asker for sighting in told(lab, TLS)} == {lab.client, lab.client6}


# Crafted: what these programs do not say.


def message(kind: str, payload: bytes, **ends: object) -> list[Sighting]:
    usual = {"mac": CLIENT_MAC, "target_mac": SERVER_MAC, "address": "10.0.0.9", "target": "10.0.0.8"}
    return tell(Frame(kind, payload, **{**usual, **ends}), 7)  # type: ignore[arg-type]  # by name


def arp(operation: int, mac: bytes, address: bytes, *, kind: int = 1, lengths: bytes = b"\6\4") -> bytes:
    return struct.pack("!HH2sH", kind, 0x800, lengths, operation) + mac + address + bytes(6) + b"\x0a\0\0\1"


def test_an_arp_probe_shows_a_station_without_an_address() -> None:
    assert short(message(ARP, arp(1, b"\2\0\0\0\0\5", bytes(4)))) == {("02:00:00:00:00:05", "", SEEN, "")}


@pytest.mark.parametrize(
    "payload",
    [
        arp(1, b"\xff" * 6, b"\x0a\0\0\5"),
        arp(1, bytes(6), b"\x0a\0\0\5"),
        arp(3, b"\2\0\0\0\0\5", b"\x0a\0\0\5"),
        arp(1, b"\2\0\0\0\0\5", b"\x0a\0\0\5", kind=6),
        arp(1, b"\2\0\0\0\0\5", b"\x0a\0\0\5", lengths=b"\5\5"),
    ],
    ids=["a group", "nobody", "RARP", "another hardware", "other lengths"],
)
def test_an_arp_message_that_shows_no_station_tells_nothing(payload: bytes) -> None:
    assert message(ARP, payload) == []


def dns(answers: list[tuple[bytes, int, int, bytes]], question: bytes = b"\3www\3lab\0", flags: int = 0x8180) -> bytes:
    head = struct.pack("!6H", 1, flags, 1, len(answers), 0, 0) + question + b"\0\1\0\1"
    return head + b"".join(
        name + struct.pack("!HHIH", kind, 1, lifetime, len(data)) + data for name, kind, lifetime, data in answers
    )


def test_behind_an_alias_an_address_has_the_name_that_was_asked_for() -> None:
    payload = dns([(b"\xc0\x0c", 5, 60, b"\3cdn\3net\0"), (b"\3cdn\3net\0", 1, 60, b"\x0a\0\0\7")])
    (found,) = message(DNS, payload)
    assert (found.address, found.value, found.asker) == ("10.0.0.7", "www.lab", "10.0.0.8")


def test_a_reverse_answer_names_the_address_in_the_question() -> None:
    reverse = b"\x017\x010\x010\x0210\7in-addr\4arpa\0"
    (found,) = message(DNS, dns([(b"\xc0\x0c", 12, 60, b"\4Host\3LAB\0")], reverse))
    assert (found.address, found.value) == ("10.0.0.7", "host.lab")
    nibbles = b"".join(b"\1" + character for character in [b"1", *[b"0"] * 27, b"7", b"7", b"d", b"f"])
    (found,) = message(DNS, dns([(b"\xc0\x0c", 12, 60, b"\4host\0")], nibbles + b"\3ip6\4arpa\0"))
    assert (found.address, found.value) == ("fd77::1", "host")


def test_an_answer_that_says_no_or_is_a_question_names_nothing() -> None:
    answer = [(b"\xc0\x0c", 1, 60, b"\x0a\0\0\7")]
    assert message(DNS, dns(answer))
    assert message(DNS, dns(answer, flags=0x8183)) == []
    assert message(DNS, dns(answer, flags=0x0100)) == []


def test_what_mdns_takes_back_is_not_told() -> None:
    name = b"\7printer\5local\0"
    kept = message(MDNS, dns([(name, 1, 120, b"\x0a\0\0\7")], name, 0x8400), target="")
    assert ("", "10.0.0.7", NAME, "printer.local") in short(kept)
    gone = message(MDNS, dns([(name, 1, 0, b"\x0a\0\0\7")], name, 0x8400), target="")
    assert {sighting.fact for sighting in gone} == {SEEN}


def bootp(operation: int, options: bytes, given: bytes = bytes(4), relay: bytes = bytes(4)) -> bytes:
    head = bytes([operation, 1, 6, 0]) + bytes(12) + given + bytes(4) + relay
    return head + b"\2\0\0\0\0\5" + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63" + options + b"\xff"


def test_a_lease_is_believed_when_it_is_acknowledged_and_not_when_it_is_offered() -> None:
    server = b"\x36\4\x0a\0\0\1"
    offer = short(message(DHCP, bootp(2, b"\x35\1\2" + server, b"\x0a\0\0\7")))
    assert offer == {("", "10.0.0.1", ROLE, "dhcp server")}
    accepted = short(message(DHCP, bootp(2, b"\x35\1\5" + server, b"\x0a\0\0\7")))
    assert accepted == {("", "10.0.0.1", ROLE, "dhcp server"), ("02:00:00:00:00:05", "10.0.0.7", SEEN, "")}


def test_a_full_name_may_be_encoded_as_in_dns() -> None:
    option = b"\x51\x0d\4\0\0\4Host\3lab\0"
    assert ("02:00:00:00:00:05", "", NAME, "host.lab") in short(message(DHCP, bootp(1, b"\x35\1\1" + option)))
    client = b"\x3d\7\1\2\0\0\0\0\5"
    assert ("02:00:00:00:00:05", "", CLIENT, "01020000000005") in short(message(DHCP, bootp(1, b"\x35\1\1" + client)))


def test_a_name_of_control_characters_stays_one_fact_of_bounded_length() -> None:
    option = b"\x0c\xff" + b"\x1b[2J\n\xff\xfe" * 40
    (name,) = [value for *_, fact, value in short(message(DHCP, bootp(1, b"\x35\1\1" + option))) if fact == NAME]
    assert len(name) <= 255
    assert name.encode() == name.encode("utf-8", "surrogatepass")


def test_an_announced_router_without_lifetime_is_none() -> None:
    advertisement = b"\x86\0\0\0\x40\0" + b"%b" + bytes(8) + b"\1\1\2\0\0\0\0\5"
    ends = {"address": "fe80::5", "target": ""}
    assert ROLE in {fact for *_, fact, _ in short(message(ND, advertisement % b"\x07\x08", **ends))}
    assert ROLE not in {fact for *_, fact, _ in short(message(ND, advertisement % b"\0\0", **ends))}


# Hostile.


@pytest.mark.parametrize("kind", [ARP, ND, DHCP, DHCPV6, DNS, MDNS, LLDP])
def test_a_message_longer_than_any_is_refused_before_it_is_looked_into(kind: str) -> None:
    with pytest.raises(TooLong):
        message(kind, bytes(LONGEST + 1))


WORST = {
    "labels": (
        MDNS,
        struct.pack("!6H", 0, 0x8400, 0, 200, 0, 0)
        + b"\1a" * 600
        + b"\0\0\x0c\0\1\0\0\0\x09\0\2\xc0\x0c"
        + b"\xc0\x0c\0\x0c\0\1\0\0\0\x09\0\2\xc0\x0c" * 60,
    ),
    "loops": (DNS, struct.pack("!6H", 0, 0x8180, 100, 100, 0, 0) + b"\xc0\x0c\0\1\0\1" * 300),
    "options": (ND, b"\x87" + bytes(7) + b"\xfe\x80" + bytes(13) + b"\1" + b"\1\1\2\0\0\0\0\1" * 250),
    "parts": (LLDP, b"\x0e\4\0\x9c\0\x80" * 340),
    "nested": (DHCPV6, b"\7abc" + b"\0\x0e\0\0" * 500),
    "padding": (DHCP, bootp(2, b"\x35\1\5" + bytes(1700))),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_messages_take_little_time(name: str) -> None:
    kind, payload = WORST[name]
    ends = {"address": "fe80::5", "target": "fe80::6"}
    began = time.process_time()
    try:
        message(kind, payload[:LONGEST], **ends)
    except Crashed as error:
        assert str(error).startswith(kind)
    assert time.process_time() - began < 1.0, "about 40 ms are usual"


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A packet with some octets changed, left out, doubled, or cut off behind its network header."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if len(made) < 40:
            break
        place = chance.randrange(14, len(made))
        match chance.randrange(5):
            case 0:
                made[place] = chance.choice((0, 1, 0x3F, 0x7F, 0x80, 0xC0, 0xFF, chance.randrange(256)))
            case 1:
                del made[place : place + chance.randint(1, 9)]
            case 2:
                made[place:place] = made[place : place + chance.randint(1, 30)]
            case 3:
                made[place:place] = chance.randbytes(chance.randint(1, 30))
            case _:
                del made[place:]
    return bytes(made)


@settings(max_examples=400, deadline=1000)
@given(st.data())
def test_whatever_becomes_of_a_packet_the_worst_is_that_it_is_called_crashed(lab: Lab, data: st.DataObject) -> None:
    control = [packet.data for packet in packets(lab.path) if frame(ETHERNET, packet.data)]
    hostile = mutated(data.draw(st.sampled_from(control)), data.draw(st.randoms(use_true_random=False)))
    for link_type in FILTERS:
        try:
            found = sightings(link_type, hostile, 1)
        except (Crashed, TooLong):
            continue
        assert len(found) <= MOST
        for sighting in found:
            assert sighting.mac or sighting.address
            assert len(sighting.value) <= 255
            assert sighting.value.encode("utf-8", "surrogatepass") == sighting.value.encode()
            assert unicast(sighting.address) == sighting.address


def test_hostile_packets_leave_nothing_behind_in_memory(lab: Lab) -> None:
    """Scapy keeps what it once looked up; after a first round of it nothing is added any more."""
    control = [packet.data for packet in packets(lab.path) if frame(ETHERNET, packet.data)]

    def go_through(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(1500):
            with suppress(Crashed, TooLong):
                sightings(ETHERNET, mutated(chance.choice(control), chance), 1)

    go_through(1)
    before = sys.getallocatedblocks()
    go_through(2)
    assert sys.getallocatedblocks() - before < 2000


def test_scapy_is_loaded_without_a_home_and_without_the_rest_of_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    program = "import sys, agent.workers.inventory.layers\nprint(*(n for n in sys.modules if n.startswith('scapy')))"
    root = Path(__file__).parents[3]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert "scapy.all" not in done.stdout.split()
    assert "scapy.layers.tls" not in done.stdout
    assert list(home.iterdir()) == []
    assert done.stderr == ""
