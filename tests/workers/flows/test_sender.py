"""Messages on their way to a collector."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.collector import Collector
from agent.workers.flows.ipfix import Domain
from agent.workers.flows.sender import CollectorFailure, Pace, Sender
from tests.workers.flows.peers import free_port


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=60), st.integers(1, 10), st.floats(5, 1000))
def test_no_more_is_sent_than_the_rate_and_one_burst(pauses: list[float], burst: int, rate: float) -> None:
    pace, now = Pace(rate, burst), 0.0
    sent = []
    for pause in pauses:
        now += pause
        now += pace.delay(now)
        sent.append(now)
    for start in range(len(sent)):
        for end in range(start + burst, len(sent)):
            assert end - start + 1 <= burst + (sent[end] - sent[start]) * rate + 1e-6


def test_who_is_slower_than_the_rate_never_waits() -> None:
    pace = Pace(10, 1)
    assert [pace.delay(number * 0.1) for number in range(20)] == pytest.approx([0.0] * 20)


def test_templates_go_before_the_first_message_of_each_domain_and_do_not_count() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listening:
        listening.bind(("::1", 0))
        listening.settimeout(5)
        with Sender(Collector("::1", listening.getsockname()[1])) as sender:
            for number in (1, 2, 1):
                of = Domain(number, 3)
                assert sender.send(of, [(struct.pack("!HHIII", 10, 16, 0, 0, number), 3)])
            assert (sender.messages, sender.records) == (5, 9)
        heads = [struct.unpack_from("!HHIIIH", listening.recv(1500).ljust(18, b"\0")) for _ in range(5)]
    assert [(sequence, domain, identifier) for _, _, _, sequence, domain, identifier in heads] == [
        *((0, 1, 2), (0, 1, 0), (0, 2, 2), (0, 2, 0), (0, 1, 0))
    ]


def test_a_port_where_nobody_listens_is_noticed() -> None:
    port = free_port()
    with Sender(Collector("127.0.0.1", port)) as sender:
        sender.send(Domain(1), [])
        with pytest.raises(CollectorFailure, match=f"^collector 127.0.0.1:{port}: nobody listens on that port$"):
            for _ in range(3):
                sender.send(Domain(1), [(bytes(16), 0)])
                sender.settle(1.0)


def test_a_name_that_is_none_is_told_in_one_line() -> None:
    with pytest.raises(CollectorFailure, match=r"^collector no\.such\.invalid:4739: cannot be resolved: .+$"):
        Sender(Collector("no.such.invalid", 4739))


def test_sending_ends_when_it_is_told_to() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        with Sender(Collector(*listening.getsockname()), lambda seconds: True) as sender:
            assert not sender.send(Domain(1), [(bytes(16), 1)] * 100)
            assert sender.messages < 30
