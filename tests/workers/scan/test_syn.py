"""SYNs of our own making find what is there, on real hosts."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.workers.scan.engine import Probe
from agent.workers.scan.syn import SynEngine
from tests.workers.scan import lab
from tests.workers.scan.driven import replies
from tests.workers.scan.truth import HOSTS, HUNDRED, LOCAL, NEAR, Truth, of_kind

ROOT = Path(__file__).resolve().parents[3]
ASKED = (1, 22, 53, 80, 443, 6379, 7001, 9999)


@contextmanager
def engine(net: lab.Network, *addresses: str) -> Iterator[SynEngine]:
    with lab.entered(net):
        made = SynEngine(addresses)
        try:
            yield made
        finally:
            made.close()


def every(hosts: Sequence[Truth], ports: Sequence[int] = ASKED) -> list[Probe]:
    return [(place, port) for port in ports for place in range(len(hosts))]


def test_every_host_that_answers_is_told_open_from_closed(net: lab.Network) -> None:
    hosts = [host for host in HOSTS if ":" not in host.address and host.rest in ("closed", "open")]
    probes = every(hosts)
    with engine(net, *(host.address for host in hosts)) as syn:
        found = replies(syn, probes, expected=len(probes))
        assert syn.trouble == ""
    for place, host in enumerate(hosts):
        for port in ASKED:
            state = "open" if port in host.tcp or host.rest == "open" else "closed"
            reply = found[place, port]
            assert (reply.state, reply.reason) == (state, "syn-ack" if state == "open" else "reset"), (host, port)
            assert reply.ttl == 64
            assert 0 < reply.rtt < 1


@pytest.mark.parametrize("host", [of_kind("v6 only")[0], LOCAL], ids=lambda host: host.kind)
def test_version_6_is_asked_as_well_and_on_a_link_by_its_zone(net: lab.Network, host: Truth) -> None:
    with engine(net, host.address) as syn:
        found = replies(syn, every([host]), expected=len(ASKED))
    assert {port for _, port in found if found[0, port].state == "open"} == host.open & set(ASKED)
    assert {(reply.state, reply.reason, reply.ttl) for reply in found.values()} <= {
        ("open", "syn-ack", 64),
        ("closed", "reset", 64),
    }


def test_silence_is_no_answer_and_a_refusal_is_told_by_its_reason(net: lab.Network) -> None:
    hosts = (of_kind("behind a firewall that drops")[0], of_kind("behind a firewall that rejects")[0])
    with engine(net, *(host.address for host in hosts)) as syn:
        found = replies(syn, every(hosts, (80, 22, 443)), expected=4)
    assert {probe: (reply.state, reply.reason) for probe, reply in found.items()} == {
        (0, 22): ("open", "syn-ack"),
        (1, 80): ("open", "syn-ack"),
        (1, 22): ("filtered", "admin-prohibited"),
        (1, 443): ("filtered", "admin-prohibited"),
    }


def test_how_long_an_answer_took_is_known(net: lab.Network) -> None:
    near, far = of_kind("10 ms away")[0], of_kind("200 ms away")[0]
    with engine(net, near.address, far.address) as syn:
        found = replies(syn, every((near, far), tuple(HUNDRED)[:5]), expected=10)
    assert all(0.010 <= reply.rtt < 0.2 for (place, _), reply in found.items() if place == 0)
    assert all(0.199 <= reply.rtt < 2 for (place, _), reply in found.items() if place == 1)


def test_an_open_port_whose_answer_was_lost_is_open_when_it_is_asked_again(net: lab.Network) -> None:
    """Its host remembers the first SYN, and would reset the connection if the second were another."""
    host = of_kind("web")[1]
    deaf = "table inet deaf { chain in { type filter hook prerouting priority -400; tcp sport 80 drop; }; }"
    with engine(net, host.address) as syn:
        lab.run(*net.inside("nft", deaf))
        try:
            syn.send([(0, 80), (0, 81)], time.monotonic())
            assert replies(syn, [], expected=1).keys() == {(0, 81)}
        finally:
            lab.run(*net.inside("nft", "delete table inet deaf"))
        found = replies(syn, [(0, 80)], expected=1)
    assert found[0, 80].state == "open"


def test_where_no_route_leads_the_kernel_says_so_at_once(net: lab.Network) -> None:
    with engine(net, "172.31.0.1") as syn:
        found = replies(syn, [(0, 80)], expected=1)
    assert (found[0, 80].state, found[0, 80].reason) == ("filtered", "net-unreach")


def test_a_neighbour_that_is_not_there_is_told_of_by_this_host(net: lab.Network) -> None:
    with engine(net, "10.99.0.201") as syn:
        found = replies(syn, [(0, 80)], expected=1)
    assert (found[0, 80].state, found[0, 80].reason) == ("filtered", "host-unreach")


def test_a_host_of_the_link_that_is_not_there_holds_up_nobody(net: lab.Network) -> None:
    """The kernel keeps what is sent to it, and charges it to the socket: without care a full one sends nothing more."""
    with engine(net, "10.99.0.1", "10.99.0.202") as syn:
        probes = every(HOSTS[:2], range(1, 3001))
        found = replies(syn, probes, expected=len(probes), rate=50_000)
    reasons = Counter((place, reply.reason) for (place, _), reply in found.items())
    assert reasons == {(0, "reset"): 2998, (0, "syn-ack"): 2, (1, "host-unreach"): 3000}


def test_what_others_send_to_our_port_is_not_believed(net: lab.Network) -> None:
    """A SYN-ACK, a RST and an ICMP message that have everything right but the number."""
    host = of_kind("web")[0]
    with engine(net, host.address) as syn:
        found = replies(syn, [(0, 80)], expected=1)
        assert found[0, 80].state == "open"
        subprocess.run([*net.there(sys.executable, "-c", FORGER), host.address, NEAR, str(syn.source_port)], check=True)
        select.select([syn], [], [], lab.PATIENCE)
        assert syn.receive(time.monotonic()) == []


FORGER = """
import socket, struct, sys
us, them, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~((total & 0xffff) + (total >> 16)) & 0xffff
tcp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
tcp.bind((us, 0))
pseudo = socket.inet_aton(us) + socket.inet_aton(them) + struct.pack("!HH", 6, 20)
for flags in (0x12, 0x14):
    plain = struct.pack("!HHIIBBHHH", 443, port, 1, 0x12345678, 0x50, flags, 1024, 0, 0)
    tcp.sendto(plain[:16] + struct.pack("!H", checksum(pseudo + plain)) + plain[18:], (them, 0))
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
icmp.bind((us, 0))
quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 44, 1, 0, 60, 6, 0, socket.inet_aton(them), socket.inet_aton(us))
quoted += struct.pack("!HHI", port, 443, 0x12345678)
plain = struct.pack("!BBHI", 3, 13, 0, 0) + quoted
icmp.sendto(plain[:2] + struct.pack("!H", checksum(plain)) + plain[4:], (them, 0))
"""


def test_other_traffic_does_not_wake_it(net: lab.Network) -> None:
    host = of_kind("web")[5]  # whose connections nobody else counts
    with engine(net, host.address) as syn:
        for port in (80, 443, 81):
            with socket.socket() as other:
                other.connect_ex((host.address, port))
        assert select.select([syn], [], [], 0)[0] == []


def test_our_port_is_nobody_elses(net: lab.Network) -> None:
    with engine(net, "10.99.0.1") as syn, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("", syn.source_port))


def test_a_firewall_of_this_host_is_trouble_and_not_a_state(net: lab.Network) -> None:
    table = "table inet own { chain out { type filter hook output priority 0; tcp dport 4444 drop; }; }"
    lab.run(*net.inside("nft", table))
    try:
        with engine(net, "10.99.0.1") as syn:
            assert syn.send([(0, 4444), (0, 80)], time.monotonic()) == 2
            assert syn.trouble == "the firewall of this host does not let probes out"
            assert [*replies(syn, [], expected=1)] == [(0, 80)]
    finally:
        lab.run(*net.inside("nft", "delete table inet own"))


SCRIPT = """
import json, sys
from agent.workers.scan.syn import SynEngine
from tests.workers.scan.driven import replies
found = replies(SynEngine(["10.99.0.1"]), [(0, port) for port in range(1, 5001)], expected=5000, rate=20000)
print(json.dumps([reply.state for reply in found.values()]))
"""


def test_the_right_to_raw_sockets_is_all_that_it_takes(net: lab.Network) -> None:
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    allowed = ("--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw", "--bounding-set=-all,+net_raw")
    command = net.inside(*user, *allowed, sys.executable, "-c", SCRIPT)
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert Counter(json.loads(done.stdout)) == {"open": 2, "closed": 4998}
    refused = subprocess.run(
        net.inside(*user, "--bounding-set=-all", sys.executable, "-c", SCRIPT),
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.stderr.splitlines()[-1] == "PermissionError: [Errno 1] Operation not permitted"
