"""Questions by UDP find what answers, and a host that is slow to say "closed" is given the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.workers.scan.udp import SLOWEST, UdpEngine
from tests.workers.scan import lab
from tests.workers.scan.driven import replies
from tests.workers.scan.truth import LOCAL, of_kind

SLOW = of_kind("says once a second that a port is closed")[0]


@contextmanager
def engine(net: lab.Network, *addresses: str) -> Iterator[UdpEngine]:
    with lab.entered(net):
        made = UdpEngine(addresses)
        made.patience = 0.2
        try:
            yield made
        finally:
            made.close()


def test_a_server_that_is_asked_its_question_is_open_and_others_are_closed(net: lab.Network) -> None:
    hosts = of_kind("dns")
    probes = [(place, port) for place in range(len(hosts)) for port in (53, 161, 9999)]
    with engine(net, *(host.address for host in hosts)) as udp:
        found = replies(udp, probes, expected=len(probes))
        assert udp.trouble == ""
    for (_, port), reply in found.items():
        expected = ("open", "udp-response", 64) if port == 53 else ("closed", "port-unreach", 0)
        assert (reply.state, reply.reason, reply.ttl) == expected
        assert reply.rtt > 0


@pytest.mark.parametrize("address", [of_kind("v6 only")[0].address, LOCAL.address])
def test_version_6_is_asked_as_well(net: lab.Network, address: str) -> None:
    with engine(net, address) as udp:
        found = replies(udp, [(0, 53), (0, 161)], expected=2)
    assert {(reply.state, reply.reason) for reply in found.values()} == {("closed", "port-unreach")}


def test_silence_is_no_answer_and_ends_with_the_patience(net: lab.Network) -> None:
    with engine(net, of_kind("behind a firewall that drops")[0].address) as udp:
        probes = [(0, port) for port in range(1, 200)]
        assert replies(udp, probes, expected=0) == {}
        assert udp.waiting == 0
        assert udp.room > 0


def test_a_refusal_on_the_way_is_told_by_its_reason(net: lab.Network) -> None:
    with engine(net, of_kind("behind a firewall that rejects")[0].address) as udp:
        found = replies(udp, [(0, 53), (0, 161)], expected=2)
    assert {(reply.state, reply.reason) for reply in found.values()} == {("filtered", "admin-prohibited")}


def test_where_no_route_leads_the_kernel_says_so_at_once(net: lab.Network) -> None:
    with engine(net, "172.31.0.1") as udp:
        found = replies(udp, [(0, 53)], expected=1)
    assert (found[0, 53].state, found[0, 53].reason) == ("filtered", "net-unreach")


def test_who_says_closed_once_a_second_is_given_the_time_and_nobody_else_waits_for_it(net: lab.Network) -> None:
    quick = of_kind("dns")[0]
    with engine(net, SLOW.address, quick.address) as udp:
        hurried = replies(udp, [(0, port) for port in range(1000, 1040)], expected=6)
        assert len(hurried) < 10
        begun = time.monotonic()
        slow, others = [(0, 2000), (0, 2001)], [(1, port) for port in range(3000, 3100)]
        assert udp.send([*slow, *others], begun) == len(slow) + len(others)
        answered = replies(udp, [], expected=len(others))
        assert {reply.state for reply in answered.values()} == {"closed"}
        assert answered.keys() >= {*slow, *others}
        assert max(answered[probe].rtt for probe in slow) < udp.patience  # it had waited here, and not on the way


def test_while_it_rests_nothing_goes_out_of_what_waits_for_a_slow_host(net: lab.Network) -> None:
    with engine(net, SLOW.address) as udp:
        # Until it says so once: another test may have used up what it says in a second.
        assert any(replies(udp, [(0, port)], expected=0) for port in range(900, 910))
        replies(udp, [(0, port) for port in range(1000, 1020)], expected=0)  # by which it is known to be slow
        now = time.monotonic()
        udp.send([(0, port) for port in range(2000, 2005)], now)
        udp.resting = True
        for later in (0.0, 5.0, 50.0):
            udp.receive(now + later)
        assert udp.waiting >= 4  # at most the first has gone out before, and was given up
        udp.resting = False
        replies(udp, [], expected=0)
        assert udp.waiting == 0


def test_what_waits_is_forgotten_when_it_is_told_to(net: lab.Network) -> None:
    with engine(net, SLOW.address) as udp:
        udp.send([(0, port) for port in range(1000, 1100)], time.monotonic())
        udp.forget()
        assert udp.waiting == 0
        assert udp.receive(time.monotonic()) == []


def test_the_slowest_pace_is_a_little_below_that_of_linux() -> None:
    assert 1.0 < SLOWEST <= 1.25  # icmp_ratelimit of icmp(7) is one a second
