"""Which expectations speak of a host, and what they say of a port together."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.watch.expectation import Bearings, Expectation, answers, identified
from tests.workers.watch.scenes import expect, port

addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda number: str(ip_address(number & 0xFF0000FF))),
    st.integers(0, 2**16).map(lambda number: str(ip_address((0xFD00 << 112) + number))),
)


@st.composite
def networks(draw: st.DrawFn) -> str:
    address = ip_address(draw(addresses))
    length = draw(st.integers(0, address.max_prefixlen))
    return str(ip_network((int(address), length), strict=False))


@given(st.lists(st.lists(networks(), min_size=1, max_size=3), max_size=5), addresses)
def test_those_that_speak_of_an_address_are_found_as_if_each_had_been_asked(
    found: list[list[str]], address: str
) -> None:
    made = [Expectation(str(number), tuple(ip_network(text) for text in hosts)) for number, hosts in enumerate(found)]
    slowly = tuple(
        one.name
        for one in made
        if any(
            network.version == ip_address(address).version and ip_address(address) in network
            for network in one.networks
        )
    )
    assert Bearings(made).of(address).names == slowly


def test_an_address_with_an_interface_is_one_without_and_what_is_none_is_nobodys() -> None:
    bearings = Bearings([expect(hosts=("fe80::1",))])
    assert bearings.of("fe80::1%eth0").names == ("web",)
    assert bearings.of("localhost").names == ()


def test_what_answers_is_told_in_words() -> None:
    assert answers(port("tcp/22", service="ssh", product="OpenSSH", version="9.2")) == "ssh OpenSSH 9.2"
    assert answers(port("tcp/6379", service="redis", product="Redis key-value store")) == "Redis key-value store"
    assert answers(port("tcp/443", service="http", tunnel="ssl")) == "ssl/http"
    assert answers(port("tcp/80")) == ""


def test_the_number_of_a_port_identifies_nobody() -> None:
    assert identified(port("tcp/80", service="http"))
    assert not identified(port("tcp/80"))
