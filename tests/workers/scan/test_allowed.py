"""The last look before anything is sent, held against the plan, which judges by other code."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.model import Engine, Profile, Scan
from agent.declaration.targets import METADATA
from agent.errors import ConfigurationError, ScanFailure
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.plan import make_plan
from tests.workers.scan.bench import Bench
from tests.workers.scan.wire import wire

addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: str(IPv6Address(number))),
    st.sampled_from(["10.0.0.1", "127.0.0.1", "169.254.169.254", "169.254.1.1", "255.255.255.255", "fe80::1%eth0"]),
    st.sampled_from(METADATA),
    st.sampled_from(["64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "2002:a9fe:a9fe::1", "2002:808:808::1", "::a9fe:a9fe"]),
    st.sampled_from(["::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0", "172.31.255.255"]),
)


@given(addresses, st.lists(st.sampled_from(["8.8.8.0/24", "0.0.0.0/0", "::/0"]), max_size=2))
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


def test_an_address_of_all_is_refused_whoever_asks_for_it() -> None:
    allowed = Allowed(("203.0.113.0/24",), (), ["10.99.0.0", "10.99.0.255", "203.0.113.255"])
    for address in ("10.99.0.0", "10.99.0.255", "203.0.113.255"):
        with pytest.raises(ScanFailure, match=f"^{address} must not be scanned: nothing was sent to it$"):
            allowed.check([address])
    allowed.check(["10.99.0.1", "10.99.1.255", "203.0.113.254"])


# -- the worker, and what it sends -------------------------------------------------------------------------------------

ENGINES: tuple[tuple[Profile, Engine, str], ...] = (
    ("ports", "connect", "79-81"),
    ("ports", "syn", "79-81"),
    ("ports", "auto", "udp/53,udp/123"),
    ("discovery", "auto", "80"),
)


@pytest.mark.parametrize(("profile", "engine", "ports"), ENGINES)
def test_hosts_that_are_excluded_get_no_packet_and_nor_do_broadcasts(
    bench: Bench, network: tuple[str, ...], profile: Profile, engine: Engine, ports: str
) -> None:
    scan = Scan(
        name="lan",
        targets=("10.77.0.0/29", "10.77.0.5", "fd00:77::2-fd00:77::3"),
        exclude=("10.77.0.3", "10.77.0.5", "fd00:77::3"),
        profile=profile,
        engine=engine,
        ports=ports,
        rate=1000,
    )
    with wire(network[-1]) as sent:
        ended = bench.run(scan, prefix=network)
    assert ended.code == 0, ended.stderr
    asked = {address for address in sent.to() if not address.startswith(("fe80::", "ff02::"))}
    assert asked == {"10.77.0.2", "10.77.0.4", "10.77.0.6", "fd00:77::2"}


FORGED = """
import ipaddress, sys
from agent.workers.scan import found, job, plan, sweeping

def forged(*declared, **more):
    number = int(ipaddress.ip_address({address!r}))
    return plan.Plan((plan.Group(4, "", ((number, number),)),), 64, "f" * 64)

async def swept(self, *chunk, **more):
    port = found.Port({protocol!r}, 53, "open", "syn-ack")
    host = found.Host({address!r}, "up", "", ports=(port,))
    return sweeping.Swept((host,), "", frozenset(), 1, 1, 0.0, {{}})

job.make_plan = forged
if {stage!r} != "discovery":
    sweeping.Sweeper.begun = lambda self, number: True
if {stage!r} == "services":
    sweeping.Sweeper.sweep = swept
from agent.workers.main import main
sys.exit(main("scan"))
"""
"""A worker whose plan holds an address that nobody allows; it gets as far as the ``stage`` without anybody looking."""


@pytest.mark.parametrize(
    ("address", "stage", "protocol"),
    [
        ("10.77.0.255", "discovery", "tcp"),
        ("8.8.8.8", "discovery", "tcp"),
        ("10.77.0.128", "sweep", "tcp"),
        ("169.254.169.254", "sweep", "tcp"),
        ("10.77.0.5", "services", "tcp"),
        ("10.77.0.5", "services", "udp"),  # which nmap alone asks what it is
    ],
)
def test_a_plan_that_was_forged_sends_nothing(
    bench: Bench, network: tuple[str, ...], address: str, stage: str, protocol: str
) -> None:
    scan = Scan(name="lan", targets=("10.77.0.2", "10.77.0.128/25"), exclude=("10.77.0.5",), ports="53", engine="syn")
    scan = msgspec.structs.replace(scan, profile="services")
    subprocess.run([*network, "ip", "route", "add", "default", "via", "10.77.0.2"], check=True)
    with wire(network[-1]) as sent:
        ended = bench.run(scan, prefix=network, entry=FORGED.format(address=address, stage=stage, protocol=protocol))
    assert ended.code == 2
    what = "is excluded" if address == "10.77.0.5" else "must not be scanned"
    assert ended.stderr.removeprefix(f"services of {address}: ") == f"{address} {what}: nothing was sent to it\n"
    assert {one for one in sent.to() if not one.startswith(("fe80::", "ff02::"))} == set()
