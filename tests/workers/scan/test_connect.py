"""The connect engine on a real network: what it tells of every kind of host, and of a kernel that takes no more."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import ScanFailure
from agent.workers.scan.connect import ConnectEngine
from agent.workers.scan.engine import Reply
from tests.workers.scan import lab
from tests.workers.scan.driven import replies
from tests.workers.scan.truth import HOSTS, LOCAL, Truth, of_kind

ASKED = (22, 23, 53, 80, 443, 6379, 7001, 9999)


@contextmanager
def engine(net: lab.Network, *addresses: str, most: int = 1000) -> Iterator[ConnectEngine]:
    with lab.entered(net):
        made = ConnectEngine(addresses, most)
        try:
            made.patience = 1.0
            yield made
        finally:
            made.close()
            made.close()  # twice does no harm


def states(net: lab.Network, *hosts: Truth, ports: Sequence[int] = ASKED) -> dict[tuple[str, int], Reply]:
    with engine(net, *(host.address for host in hosts)) as made:
        found = replies(made, [(place, port) for port in ports for place in range(len(hosts))], expected=0)
    return {(hosts[place].address, port): reply for (place, port), reply in found.items()}


def test_every_host_that_answers_is_told_open_from_closed(net: lab.Network) -> None:
    hosts = [host for host in HOSTS if host.rest == "closed" and ":" not in host.address and "limits" not in host.kind]
    hosts = [host for host in hosts if "once a second" not in host.kind]
    found = states(net, *hosts)
    assert {key for key, reply in found.items() if reply.state == "open"} == {
        (host.address, port) for host in hosts for port in ASKED if port in host.open
    }
    assert {reply.reason for reply in found.values()} == {"syn-ack", "reset"}
    assert len(found) == len(hosts) * len(ASKED)
    assert all(0 < reply.rtt < 2 for reply in found.values())


@pytest.mark.parametrize("host", [*of_kind("v6 only"), LOCAL], ids=lambda host: host.kind)
def test_version_6_is_asked_as_well_and_on_a_link_by_its_zone(net: lab.Network, host: Truth) -> None:
    found = states(net, host)
    assert {port for (_, port), reply in found.items() if reply.state == "open"} == host.open & set(ASKED)


def test_silence_is_no_answer_and_a_rejection_is_not_taken_for_a_reset(net: lab.Network) -> None:
    drops, rejects = of_kind("behind a firewall that drops")[0], of_kind("behind a firewall that rejects")[0]
    found = states(net, drops, rejects, ports=(22, 80))
    assert found[drops.address, 22].state == "open"
    assert (drops.address, 80) not in found
    assert found[rejects.address, 80].state == "open"
    assert (found[rejects.address, 22].state, found[rejects.address, 22].reason) == ("filtered", "admin-prohibited")


def test_where_no_route_leads_the_kernel_says_so_at_once(net: lab.Network) -> None:
    with engine(net, "172.31.0.1") as made:
        assert made.send([(0, 80)], 0.0) == 1
        assert made.receive(0.0) == [Reply(0, 80, "filtered", "net-unreach")]


@pytest.mark.parametrize(
    ("word", "reason"), [("admin-prohibited", "admin-prohibited"), ("port-unreachable", "port-unreach")]
)
def test_a_rule_of_this_host_that_rejects_is_told_by_its_reason(net: lab.Network, word: str, reason: str) -> None:
    host = of_kind("web")[2]
    reject = f"ip daddr {host.address} reject with icmp {word}"
    rules = f"table inet own {{ chain out {{ type filter hook output priority 0; {reject}; }}; }}"
    subprocess.run([*net.inside("nft", rules)], check=True)
    try:
        found = states(net, host, ports=(80,))
    finally:
        subprocess.run([*net.inside("nft", "delete table inet own")], check=True)
    assert {(reply.state, reply.reason) for reply in found.values()} == {("filtered", reason)}


def test_what_is_not_answered_is_given_up_and_leaves_no_descriptor(net: lab.Network) -> None:
    drops = of_kind("behind a firewall that drops")[0]
    with engine(net, drops.address) as made:
        made.patience = 0.2
        assert made.send([(0, port) for port in range(100, 150)], 10.0) == 50
        assert made.receive(10.1) == []
        assert made.waiting == 50
        assert made.receive(10.3) == []
        assert made.waiting == 0


def test_it_takes_no_more_than_it_may_hold(net: lab.Network) -> None:
    drops = of_kind("behind a firewall that drops")[0]
    with engine(net, drops.address, most=10) as made:
        assert made.room == 10
        assert made.send([(0, port) for port in range(100, 150)], 0.0) == 10
        assert made.room == 0
        made.forget()
        assert made.room == 10


def test_without_descriptors_it_waits_for_better_times(net: lab.Network) -> None:
    drops = of_kind("behind a firewall that drops")[0]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with engine(net, drops.address) as made:
        used = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
        low = next(end for end in range(1, 10_000) if end - len({fd for fd in used if fd < end}) == 20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, limits[1]))
        try:
            sent = made.send([(0, port) for port in range(100, 200)], 0.0)
            assert 0 < sent <= 25
            assert made.room == 0
            made.patience = 0.2
            assert made.receive(1.0) == []
            assert made.room > 0
            assert made.send([(0, 22)], 1.0) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_local_ports_that_are_used_up_are_waited_for(net: lab.Network) -> None:
    drops = of_kind("behind a firewall that drops")[0]
    few = Path("/proc/sys/net/ipv4/ip_local_port_range")
    with engine(net, drops.address) as made:
        usual = few.read_text()  # of the namespace that this thread is in
        few.write_text("40000 40009")
        try:
            assert made.send([(0, 99)] * 30, 0.0) == 10
            assert made.room == 0
            made.patience = 0.2
            made.receive(1.0)
            assert made.send([(0, 99)], 1.0) == 1
        finally:
            few.write_text(usual)


def test_a_zone_that_is_no_interface_is_one_clear_line(net: lab.Network) -> None:
    with pytest.raises(ScanFailure, match="fe80::1%nowhere: this host has no interface nowhere"):
        ConnectEngine(["fe80::1%nowhere"])


def test_an_accepted_connection_ends_at_once_and_does_not_linger(net: lab.Network) -> None:
    host = of_kind("web")[0]
    states(net, host, ports=(80, 443))
    shown = subprocess.run(
        [*net.inside("ss", "-Htan", "dst", host.address)], check=True, capture_output=True, text=True
    ).stdout
    assert shown == ""
