"""Whom a scan may touch."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.targets import (
    METADATA,
    NEVER,
    OWN,
    all_excluded,
    count,
    left_out,
    objection,
    permitted,
    span,
    target,
    without_interface,
)
from agent.errors import UsageError

NONE = 'is no address, network, range or name; write one such as "10.20.0.0/24", "10.20.0.1-50" or "nas.example.org"'


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.0.0.5", "10.0.0.5"),
        (" 10.20.0.0/24 ", "10.20.0.0/24"),
        ("10.20.0.0/255.255.255.0", "10.20.0.0/24"),
        ("FD00:20:0::0/120", "fd00:20::/120"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("10.0.0.1-10.0.0.50", "10.0.0.1-10.0.0.50"),
        ("10.0.0.1 - 50", "10.0.0.1-10.0.0.50"),
        ("10.0.0.7-7", "10.0.0.7"),
        ("10.0.0.250-10.0.1.5", "10.0.0.250-10.0.1.5"),
        ("FD00::1-ff", "fd00::1-fd00::ff"),
        ("fd00::1-fd00::1:0", "fd00::1-fd00::1:0"),
        ("NAS.Example.org.", "nas.example.org"),
        ("3com", "3com"),
        ("srv-a_1", "srv-a_1"),
        ("file:/srv/key/a b.txt", "file:/srv/key/a b.txt"),
    ],
)
def test_a_target_is_normalised(text: str, normal: str) -> None:
    assert target(text) == normal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1/24", '"10.0.0.1/24" has host bits set; write 10.0.0.0/24'),
        ("fd00::1/64", '"fd00::1/64" has host bits set; write fd00::/64'),
        ("--script", f'"--script" {NONE}'),
        ("a b", f'"a b" {NONE}'),
        ("10.0.0.1,10.0.0.2", f'"10.0.0.1,10.0.0.2" {NONE}'),
        ("10.0.0.1-", f'"10.0.0.1-" {NONE}'),
        ("10.0.0.1-300", f'"10.0.0.1-300" {NONE}'),
        ("10.0.0.50-1", '"10.0.0.50-1" runs backwards; write 10.0.0.1-10.0.0.50'),
        ("fd00::2-1", '"fd00::2-1" runs backwards; write fd00::1-fd00::2'),
        ("fd00::1-10.0.0.1", '"fd00::1-10.0.0.1" begins and ends in different families; write both ends in one'),
        ("0x7f000001", f'"0x7f000001" {NONE}'),
        ("127.1", f'"127.1" {NONE}'),
        ("file:hosts", '"file:hosts" is not an absolute path; write one such as "file:/srv/key/hosts.txt"'),
        ("10.0.0", f'"10.0.0" {NONE}'),
        ("10.0.0.256", f'"10.0.0.256" {NONE}'),
        ("10.0.0.0/33", f'"10.0.0.0/33" {NONE}'),
        ("010.0.0.1", f'"010.0.0.1" {NONE}'),
        (
            "fd00::1%eth0",
            '"fd00::1%eth0" is not an address; only a link-local one may name its interface: fe80::1%eth0',
        ),
        ("fe80::1%a b", '"fe80::1%a b" is not an address; only a link-local one may name its interface: fe80::1%eth0'),
    ],
)
def test_what_is_no_target_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        target(text)
    assert str(error.value) == message


def judged(targets: list[str], allow_public: list[str] | None) -> list[tuple[int, str]]:
    """The objections, each with the position of its target and as it is read after it."""
    allowed = None if allow_public is None else permitted(allow_public)
    found = ((position, text, objection(text, allowed)) for position, text in enumerate(targets))
    return [(position, f"{text} {told}") for position, text, told in found if told is not None]


@pytest.mark.parametrize(
    "text",
    ["10.1.2.3", "172.16.0.0/12", "192.168.1.0/24", "127.0.0.1", "169.254.1.1", "::1", "fd00::/120", "fe80::1%lo"],
)
def test_what_is_ours_may_be_scanned(text: str) -> None:
    assert judged([text], []) == []


@pytest.mark.parametrize("text", ["8.8.8.8", "172.32.0.1", "10.0.0.0/7", "100.64.0.1", "2001:db8::1", "192.168.0.0/15"])
def test_what_is_public_must_be_allowed_by_name(text: str) -> None:
    message = f"{text} is public; only scan what is yours, and then name it in allow_public too"
    assert judged(["10.0.0.1", text], ["9.9.9.9"]) == [(1, message)]
    assert judged([text], [text]) == []


def test_allowed_networks_that_touch_allow_what_spans_them() -> None:
    assert judged(["8.8.8.0/24"], ["8.8.8.0/25", "8.8.8.128/25"]) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("224.0.0.1", "224.0.0.1 is multicast, which is never scanned; leave it out"),
        ("255.255.255.255", "255.255.255.255 is broadcast, which is never scanned; leave it out"),
        ("0.0.0.0", "0.0.0.0 is unspecified, which is never scanned; leave it out"),
        (
            "169.254.169.254",
            "169.254.169.254 is the metadata service of a cloud, which is never scanned; leave it out",
        ),
        ("10.0.0.0-255.255.255.255", "10.0.0.0-255.255.255.255 holds multicast, which is never scanned; leave it out"),
        ("ff02::1", "ff02::1 is multicast, which is never scanned; leave it out"),
        ("::", ":: is unspecified, which is never scanned; leave it out"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1 is IPv4 in disguise, which is never scanned; leave it out"),
        ("240.0.0.1", "240.0.0.1 is reserved, which is never scanned; leave it out"),
        ("ff02::1:ff00:1", "ff02::1:ff00:1 is multicast, which is never scanned; leave it out"),
        ("64:ff9b::e000:1", "64:ff9b::e000:1 is multicast, in disguise, which is never scanned; leave it out"),
        ("2002:ffff:ffff::1", "2002:ffff:ffff::1 is broadcast, in disguise, which is never scanned; leave it out"),
        ("::10.0.0.1", "::10.0.0.1 is IPv4 in disguise, which is never scanned; leave it out"),
        ("::ffff:0:10.0.0.1", "::ffff:0:10.0.0.1 is IPv4 in disguise, which is never scanned; leave it out"),
        ("64:ff9b:1::1", "64:ff9b:1::1 is IPv4 in disguise, which is never scanned; leave it out"),
    ],
)
def test_some_addresses_are_never_scanned_whatever_is_allowed(text: str, reason: str) -> None:
    assert [message for _, message in judged([text], ["0.0.0.0/0", "::/0"])] == [reason]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fe80::1", "is link-local; name its interface: fe80::1%eth0"),
        ("febf::1", "is link-local; name its interface: febf::1%eth0"),
        ("fe80::1%eth0", None),
        ("fe80::/120", "holds link-local addresses; name each by itself, with its interface: fe80::1%eth0"),
        ("fe80::1-f", "holds link-local addresses; name each by itself, with its interface: fe80::1%eth0"),
        ("fe7f:ffff::-fe80::1", "holds link-local addresses; name each by itself, with its interface: fe80::1%eth0"),
        ("fe7f::1", None),
        ("fec0::1", None),
        ("169.254.1.1", None),
    ],
)
def test_a_link_local_address_is_one_on_an_interface(text: str, told: str | None) -> None:
    assert without_interface(target(text)) == told


DISGUISED = ("64:ff9b::{}", "2002:{}::1", "::{}", "::ffff:{}", "::ffff:0:{}", "64:ff9b:1::{}")


@pytest.mark.parametrize("address", [*METADATA, *(form.format("a9fe:a9fe") for form in DISGUISED)])
def test_no_service_of_a_cloud_is_scanned_in_any_form_whatever_is_allowed(address: str) -> None:
    [(_, message)] = judged([target(address)], ["0.0.0.0/0", "::/0"])
    assert message.startswith(f"{ip_address(address)} is ")
    assert message.endswith(", which is never scanned; leave it out")
    if ip_address(address).is_link_local and ":" in address:
        assert judged([target(f"{address}%eth0")], [])


def test_what_holds_the_service_of_a_cloud_is_scanned_around_it() -> None:
    assert judged(["169.254.0.0/16", "fd00:ec2::/112", "fe80::a9fe:a900-fe80::a9fe:a9ff"], []) == []
    assert left_out(["169.254.169.250-169.254.169.255", "fd00:ec2::/112"]) == {
        "169.254.169.254": "the metadata service of a cloud",
        "169.254.169.253": "the metadata service of a cloud",
        "fd00:ec2::254": "the metadata service of a cloud",
        "fd00:ec2::23": "the metadata service of a cloud",
    }


@pytest.mark.parametrize(
    ("targets", "addresses"),
    [
        (["10.99.0.0/24"], ["10.99.0.0", "10.99.0.255"]),
        (["10.99.0.0/30"], ["10.99.0.0", "10.99.0.3"]),
        (["10.99.0.0/31", "10.99.0.2/32", "10.99.0.255"], []),
        (["10.99.0.0/23"], ["10.99.0.0", "10.99.1.255"]),  # 10.99.0.255 and 10.99.1.0 may be hosts of it
        (["10.99.0.0/23", "10.99.0.0/24"], ["10.99.0.0", "10.99.1.255", "10.99.0.255"]),
        (["10.99.0.0-10.99.0.255"], ["10.99.0.0", "10.99.0.255"]),
        (["10.99.0.0-10.99.2.255"], ["10.99.0.0", "10.99.2.255"]),
        (["10.99.0.4-7", "10.99.0.1-255", "10.99.0.0-254"], []),  # hosts, of a network that nobody has named
        (["127.0.0.0/24", "fd00::/120", "10.99.0.1"], []),
    ],
)
def test_a_network_is_scanned_without_the_addresses_that_are_those_of_all_of_it(
    targets: list[str], addresses: list[str]
) -> None:
    targets = [target(text) for text in targets]
    assert list(left_out(targets)) == addresses
    assert count(targets) == len({str(one) for text in targets for one in _every(text)} - set(addresses))


def _every(text: str) -> Iterator[object]:
    one = span(text)
    return (ip_address(number) if one.family == 4 else IPv6Address(number) for number in range(one.low, one.high + 1))


def test_while_it_is_not_known_what_is_allowed_only_the_forbidden_is_objected_to() -> None:
    assert judged(["8.8.8.8"], None) == []
    assert [position for position, _ in judged(["8.8.8.8", "224.0.0.1"], None)] == [1]


def test_what_overlaps_counts_once() -> None:
    assert count(["10.0.0.0/24", "10.0.0.5", "10.0.0.128/25", "fd00::1"]) == 257 - 3


def test_everything_excluded_leaves_nothing() -> None:
    assert all_excluded(["10.0.0.0/24", "10.0.1.5"], ["10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/24"])
    assert not all_excluded(["10.0.0.0/24"], ["10.0.0.0/25"])
    assert all_excluded(["10.0.0.0/30"], ["10.0.0.1", "10.0.0.2"])
    assert not all_excluded(["fd00::1"], ["10.0.0.0/8"])


def test_an_address_is_excluded_on_its_own_interface_or_on_all() -> None:
    assert all_excluded(["fe80::1%eth0"], ["fe80::1"])
    assert all_excluded(["fe80::1%eth0"], ["fe80::1%eth0"])
    assert not all_excluded(["fe80::1%eth0"], ["fe80::1%eth1"])


@given(st.ip_addresses())
def test_an_address_is_ours_or_objected_to_unless_allowed(address: object) -> None:
    text = target(str(address))
    own = any(ip_address(text) in network for network in OWN)
    never = any(ip_address(text) in network for network, _ in NEVER)
    assert (judged([text], []) == []) == (own and not never)
    assert (judged([text], [text]) == []) == (not never)


@given(st.ip_addresses(v=4), st.integers(16, 32))
def test_a_network_is_read_back_as_it_was_normalised(address: object, prefix: int) -> None:
    network = str(ip_network(f"{address}/{prefix}", strict=False))
    assert target(network) == network


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_is_refused_in_one_line(text: str) -> None:
    try:
        normal = target(text)
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert target(normal) == normal
