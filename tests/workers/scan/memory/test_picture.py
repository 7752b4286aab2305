"""A picture shows the host that it was made of, and looks at one host are put together without loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.scan.found import PROTOCOLS, STATES, Certificate, Host, Port, Rest, Script
from agent.workers.scan.memory.picture import asked, decode, encode, join, tidy
from agent.workers.scan.spans import Ranges, merge, without

TEXT = st.text(max_size=12)
NUMBERS = st.integers(1, 40)
STATE = st.sampled_from(STATES)
CERTIFICATES = st.builds(Certificate, TEXT, TEXT, TEXT, st.integers(0, 2**40), st.integers(0, 2**40))
PORTS = st.builds(
    Port,
    st.sampled_from(PROTOCOLS),
    NUMBERS,
    STATE,
    TEXT,
    service=TEXT,
    product=TEXT,
    version=TEXT,
    tunnel=st.sampled_from(("", "ssl")),
    cpe=st.lists(TEXT, max_size=2).map(tuple),
    method=st.sampled_from(("", "table", "probed")),
    ttl=st.integers(0, 255),
    certificate=st.none() | CERTIFICATES,
    scripts=st.lists(st.builds(Script, TEXT, TEXT), max_size=2).map(tuple),
)


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    ports = draw(st.lists(PORTS, max_size=4, unique_by=lambda port: port.key))
    told: dict[str, Ranges] = {
        protocol: merge((port.number, port.number) for port in ports if port.protocol == protocol)
        for protocol in PROTOCOLS
    }
    rest = []
    for protocol in PROTOCOLS:
        spans = merge((number, number + 2) for number in draw(st.sets(NUMBERS, max_size=2)))
        if left := without(spans, told[protocol]):
            rest.append(Rest(protocol, draw(STATE), draw(TEXT), left))
    return tidy(
        Host("10.0.0.1", draw(st.sampled_from(("up", "down"))), draw(TEXT), draw(TEXT), (), tuple(ports), tuple(rest))
    )


@given(hosts())
def test_a_picture_shows_what_it_was_made_of(host: Host) -> None:
    key, data = encode(host)
    assert decode("10.0.0.1", data) == host
    assert decode("fe80::1%eth0", data) == replace(host, address="fe80::1%eth0")
    assert encode(replace(host, address="10.0.0.2")) == (key, data)
    assert encode(replace(host, reason=host.reason + "x"))[0] != key


@settings(max_examples=60)
@given(hosts(), hosts())
def test_two_looks_make_one_that_has_all_that_both_asked_and_the_later_state(before: Host, now: Host) -> None:
    both = join(before, now)
    assert both == tidy(both)
    assert both.state == ("up" if "up" in (before.state, now.state) else "down")
    for protocol in PROTOCOLS:
        for number in range(44):
            later, earlier = now.state_of(protocol, number), before.state_of(protocol, number)
            assert both.state_of(protocol, number) == (earlier if later is None else later)
    assert dict(asked(both)).keys() == dict(asked(before)).keys() | dict(asked(now)).keys()
    assert join(both, now) == both
    assert join(both, before).ports == join(join(before, now), before).ports


def test_a_second_look_keeps_why_nothing_is_known_of_a_port() -> None:
    silent = Port("tcp", 22, "open", "syn-ack; says nothing")
    again = Port("tcp", 22, "open", "syn-ack", ttl=64)
    closed = Port("tcp", 22, "closed", "reset")

    def joined(before: Port, now: Port) -> Port:
        (port,) = join(Host("", "up", "syn-ack", ports=(before,)), Host("", "up", "syn-ack", ports=(now,))).ports
        return port

    assert joined(silent, again) == replace(again, reason="syn-ack; says nothing")
    assert joined(again, silent) == silent
    assert joined(silent, closed) == closed


def test_most_pictures_are_small() -> None:
    ssh = Port("tcp", 22, "open", "syn-ack", "ssh", "OpenSSH", "9.2p1", "protocol 2.0", method="probed", ttl=64)
    closed = Rest("tcp", "closed", "reset", ((1, 21), (23, 1024)))
    host = Host("10.0.0.1", "up", "arp-response", "02:00:00:00:00:01", ports=(ssh,), rest=(closed,))
    assert len(encode(host)[1]) < 80


@pytest.mark.parametrize("data", [b"", b"\0", b"garbage", encode(Host("a", "up", "b"))[1][:-2]])
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(StorageFailure):
        decode("10.0.0.1", data)


@pytest.mark.parametrize("ports", [((5, 1),), ((1, 70000),), ((1, 5), (3, 9)), ((-4, 5),)])
def test_a_picture_of_ports_that_cannot_be_is_refused(ports: Ranges) -> None:
    _, data = encode(Host("10.0.0.1", "up", "b", rest=(Rest("tcp", "closed", "", ports),)))
    with pytest.raises(StorageFailure, match="is no range of ports"):
        decode("10.0.0.1", data)
