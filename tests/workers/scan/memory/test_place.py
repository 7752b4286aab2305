"""Addresses are numbers on lines: in order, in ranges, and back."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.memory.place import Line, order, pack, place, ranges, text, unpack

ADDRESSES = st.ip_addresses().map(str)


@given(ADDRESSES)
def test_an_address_is_a_place_and_back(address: str) -> None:
    line, number = place(address)
    assert text(line, number) == address
    assert unpack(pack(line.family, number)) == number


@given(st.lists(ADDRESSES, max_size=8))
def test_the_key_sorts_as_addresses_do(addresses: list[str]) -> None:
    def by_value(address: str) -> tuple[int, int]:
        parsed: IPv4Address | IPv6Address = ip_address(address)
        return parsed.version, int(parsed)

    assert sorted(addresses, key=order) == sorted(addresses, key=by_value)


def test_an_interface_makes_a_line_of_its_own() -> None:
    found = ranges(["fe80::2%eth0", "fe80::1%eth0", "fe80::1%eth1", "10.0.0.1", "10.0.0.2"])
    low = int(IPv6Address("fe80::1"))
    assert found == {
        Line(6, "eth0"): ((low, low + 1),),
        Line(6, "eth1"): ((low, low),),
        Line(4, ""): ((0x0A000001, 0x0A000002),),
    }
    assert text(Line(6, "eth0"), low) == "fe80::1%eth0"


@pytest.mark.parametrize(
    "wrong", ["", "10.0.0", "10.0.0.1/8", "10.0.0.1%eth0", "fe80::1%", f"fe80::1%{'x' * 16}", "-oN"]
)
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        place(wrong)
