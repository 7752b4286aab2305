"""Ports, sets of them, and their one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.ports import LAST, LONGEST, NAMED, Ports, parse_ports, set_name
from agent.errors import UsageError

EDGES = st.integers(1, LAST) | st.sampled_from([1, LAST])
SPANS = st.tuples(EDGES, EDGES).map(lambda pair: (min(pair), max(pair)))
ITEMS = st.one_of(
    st.tuples(st.sampled_from(["", "tcp/", "udp/"]), SPANS).map(lambda one: f"{one[0]}{one[1][0]}-{one[1][1]}"),
    st.tuples(st.sampled_from(["", "tcp/", "udp/"]), EDGES).map(lambda one: f"{one[0]}{one[1]}"),
    st.tuples(st.sampled_from(["", "tcp/", "udp/"]), EDGES).map(lambda one: f"{one[0]}top-{one[1]}"),
    st.sampled_from([*NAMED, "all", "udp/all"]),
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1-1024,5432", "1-1024,5432"),
        (" 443 , 80 ", "80,443"),
        ("5-20,1-10,22", "1-20,22"),
        ("1,2,3", "1-3"),
        ("00080", "80"),
        (22, "22"),
        ("1-1024,5432,udp/53,udp/161,tcp/8080", "1-1024,5432,8080,udp/53,udp/161"),
        ("udp/2,udp/1,tcp/2,1", "1-2,udp/1-2"),
        ("all", "1-65535"),
        ("udp/all,tcp/all", "1-65535,udp/1-65535"),
        ("top-100,22", "22,top-100"),
        ("top-100,top-20,udp/top-5,tcp/top-7", "top-100,udp/top-5"),
        ("mail", NAMED["mail"]),
    ],
)
def test_ports_have_one_spelling(text: str | int, normal: str) -> None:
    assert str(parse_ports(text)) == normal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", '"0" is not a port; ports go from 1 to 65535'),
        ("1-65536", '"1-65536" is not a port; ports go from 1 to 65535'),
        ("udp/0", '"udp/0" is not a port; ports go from 1 to 65535'),
        ("20-10", '"20-10" runs backwards; write 10-20'),
        ("", '"" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        ("80,", '"" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        ("U:53", '"U:53" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        ("sctp/9", '"sctp/9" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        ("udp/web", '"udp/web" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        ("-", '"-" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        ("--script=x", '"--script=x" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        (-1, '"-1" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"'),
        ("webb", '"webb" is neither a port nor a set of ports; did you mean web?'),
        ("top-0", '"top-0" names no number of ports; write top-1 to top-65535'),
        ("top-70000", '"top-70000" names no number of ports; write top-1 to top-65535'),
        ("1," * LONGEST, f"{2 * LONGEST} characters are too many for ports; write at most 16384, with ranges"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_what_is_no_port_is_refused(text: str | int, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_ports(text)
    assert str(error.value) == message


@given(st.lists(ITEMS, min_size=1, max_size=20))
def test_the_spelling_reads_back_as_the_same(items: list[str]) -> None:
    ports = parse_ports(",".join(items))
    assert parse_ports(str(ports)) == ports
    assert ports.number > 0


@given(st.lists(st.tuples(st.sampled_from(["", "udp/"]), SPANS), min_size=1, max_size=20), EDGES)
def test_a_port_is_held_when_an_item_names_it(items: list[tuple[str, tuple[int, int]]], port: int) -> None:
    ports = parse_ports(",".join(f"{protocol}{low}-{high}" for protocol, (low, high) in items))
    for protocol, word in (("tcp", ""), ("udp", "udp/")):
        named = any(word == one and low <= port <= high for one, (low, high) in items)
        assert ports.holds(protocol, port) == named
    assert ports.settled


def test_a_set_of_the_operator_stands_for_its_ports() -> None:
    assert str(parse_ports("shop,22", {"shop": "8080-8081,udp/9000,top-5"})) == "22,8080-8081,udp/9000,top-5"


@pytest.mark.parametrize("name", NAMED)
def test_our_own_sets_are_small_and_settled(name: str) -> None:
    ports = parse_ports(name)
    assert 0 < ports.number < 40
    assert ports.settled
    assert ports != Ports()


@pytest.mark.parametrize("name", ["all", "tcp", "udp", "top-10", "Web", "9000", "a b", ""])
def test_a_name_that_means_something_else_is_no_name_of_a_set(name: str) -> None:
    with pytest.raises(UsageError) as error:
        set_name(name)
    assert str(error.value).startswith("a set's name begins with a letter a to z")


def test_our_own_sets_keep_their_names() -> None:
    with pytest.raises(UsageError, match=r"^web is a set of the program's own; choose another name$"):
        set_name("web")
    assert set_name("web_2") == "web_2"
