"""MACs, addresses and names in one spelling, and nothing that cannot be one station's."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.inventory.sighting import (
    address_text,
    domain_name,
    locally_administered,
    mac_text,
    station,
    unicast,
    words,
)


@given(st.binary(max_size=20))
def test_octets_become_a_spelling_that_reads_back_or_nothing(octets: bytes) -> None:
    mac, address = mac_text(octets), address_text(octets)
    assert station(mac) == mac
    assert unicast(address) == address
    assert not mac or bytes.fromhex(mac.replace(":", "")) == octets
    assert not address or ipaddress.ip_address(address).packed == octets


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "255.255.255.255", "224.0.0.251", "::", "ff02::fb", "", "x", "10.0.0.1/24"]
)
def test_what_cannot_be_one_host_is_no_address(text: str) -> None:
    assert unicast(text) == ""


@pytest.mark.parametrize("text", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "00:00:00:00:00:00", "02:00:00", "x"])
def test_what_cannot_be_one_station_is_no_mac(text: str) -> None:
    assert station(text) == ""


def test_a_mac_that_nobodys_factory_gave_is_known() -> None:
    assert locally_administered("02:42:ac:11:00:02")
    assert not locally_administered("00:1b:21:00:00:01")


@given(st.one_of(st.binary(max_size=600), st.text(max_size=600)))
def test_words_are_text_that_can_be_written_and_not_too_long(raw: bytes | str) -> None:
    for made in (words(raw), domain_name(raw)):
        assert len(made) <= 255
        assert made.encode() is not None


def test_a_name_in_dns_is_one_however_it_is_written() -> None:
    assert domain_name(b"WWW.Lab.Test.") == "www.lab.test"
    assert words(b"printer\0\0") == "printer"
