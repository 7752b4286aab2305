"""The last look before anything is sent, held against the plan, which judges by other code."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigurationError, ScanFailure
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.plan import make_plan

addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: str(IPv6Address(number))),
    st.sampled_from(["10.0.0.1", "127.0.0.1", "169.254.169.254", "169.254.1.1", "255.255.255.255", "fe80::1%eth0"]),
    st.sampled_from(["::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0", "172.31.255.255"]),
)


@given(addresses, st.lists(st.sampled_from(["8.8.8.0/24", "2001:db8::/32", "1.0.0.0/8"]), max_size=2))
def test_it_says_what_the_plan_says(address: str, allow_public: list[str]) -> None:
    try:
        make_plan([address], (), allow_public)
        planned = True
    except ConfigurationError:
        planned = False
    try:
        Allowed(allow_public).check([address])
        assert planned
    except ScanFailure:
        assert not planned


def test_what_is_excluded_is_never_asked_in_any_zone() -> None:
    allowed = Allowed((), ("10.0.0.5", "10.0.1.0/24", "10.0.2.7-10.0.2.9", "fe80::5", "fe80::6%eth0"))
    for address in ("10.0.0.5", "10.0.1.99", "10.0.2.8", "fe80::5%eth1", "fe80::6%eth0"):
        with pytest.raises(ScanFailure, match="is excluded: nothing was sent to it"):
            allowed.check(["10.0.0.1", address])
    allowed.check(["10.0.0.4", "10.0.0.6", "10.0.2.10", "fe80::6%eth1"])


def test_the_line_says_which_address_it_is() -> None:
    with pytest.raises(ScanFailure, match=r"^8\.8\.8\.8 must not be scanned: nothing was sent to it$"):
        Allowed().check(["10.0.0.1", "8.8.8.8"])
