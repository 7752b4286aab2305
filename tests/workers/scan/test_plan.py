"""A plan holds exactly the declared addresses that may be scanned."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.targets import NEVER, OWN
from agent.errors import ConfigurationError
from agent.workers.scan.grid import Grid
from agent.workers.scan.permute import Permutation
from agent.workers.scan.plan import CHUNK_ADDRESSES, CHUNK_PROBES, Plan, make_plan
from agent.workers.scan.spans import merge, without

# Few addresses, so that networks overlap, touch and swallow each other.
v4 = st.builds(
    lambda value, bits: str(IPv4Network((0x0A000000 + (value >> (32 - bits) << (32 - bits)), bits))),
    st.integers(0, 1023),
    st.integers(24, 32),
)
v6 = st.builds(
    lambda value, bits: str(IPv6Network(((0xFD << 120) + (value >> (128 - bits) << (128 - bits)), bits))),
    st.integers(0, 1023),
    st.integers(120, 128),
)
networks = st.lists(v4 | v6, min_size=1, max_size=8)
ranges = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)).map(lambda r: (r[0], r[0] + r[1])), max_size=12)


def members(texts: list[str]) -> set[str]:
    return {str(address) for text in texts for address in ip_network(text)}


def addresses(plan: Plan) -> list[str]:
    return [address for chunk in plan.chunks() for address in chunk.addresses]


@settings(deadline=None)
@given(networks, st.lists(v4 | v6, max_size=4), st.integers(0, 70_000))
def test_chunks_hold_each_declared_address_once_and_no_other(
    targets: list[str], exclude: list[str], ports: int
) -> None:
    expected = members(targets) - members(exclude)
    if not expected:
        with pytest.raises(ConfigurationError, match="nothing to scan"):
            make_plan(targets, exclude, ports=ports)
        return
    plan = make_plan(targets, exclude, ports=ports)
    found = addresses(plan)
    assert len(found) == len(set(found)) == plan.hosts
    assert set(found) == expected
    assert found == sorted(found, key=lambda text: (ip_address(text).version, int(ip_address(text))))
    chunks = list(plan.chunks())
    assert [chunk.number for chunk in chunks] == list(range(plan.chunk_count))
    for chunk in chunks:
        assert 1 <= len(chunk.addresses) <= CHUNK_ADDRESSES
        assert {ip_address(address).version for address in chunk.addresses} == {chunk.family}
        assert len(chunk.addresses) * ports <= CHUNK_PROBES


@settings(deadline=None)
@given(networks, st.randoms(use_true_random=False))
def test_the_same_addresses_in_any_order_and_spelling_are_the_same_plan(targets: list[str], dice: object) -> None:
    shuffled = [*targets, *targets]
    dice.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object
    pieces = [str(half) for text in targets for half in _halves(text)]
    assert make_plan(targets) == make_plan(shuffled) == make_plan(pieces)


def _halves(text: str) -> list[IPv4Network | IPv6Network]:
    network = ip_network(text)
    return list(network.subnets()) if network.prefixlen < network.max_prefixlen else [network]


@settings(deadline=None)
@given(networks, st.integers(0, 2**48 - 1))
def test_chunks_are_asked_in_an_order_that_the_seed_decides_and_each_is_made_by_itself(
    targets: list[str], seed: int
) -> None:
    plan = make_plan(targets, ports=1 << 18)
    order = list(plan.order(seed))
    assert sorted(order) == list(range(plan.chunk_count))
    assert order == list(make_plan(targets, ports=1 << 18).order(seed))
    assert [plan.chunk(number) for number in range(plan.chunk_count)] == list(plan.chunks())
    for wrong in (-1, plan.chunk_count):
        with pytest.raises(IndexError):
            plan.chunk(wrong)


def test_a_long_list_of_single_addresses_is_planned_as_quickly_as_it_is_read() -> None:
    """Every second address of a /18: each is a range of its own, and none is held against all others."""
    plan = make_plan([f"10.0.{third}.{last}" for third in range(64) for last in range(1, 255, 2)], ["10.0.7.0/24"])
    assert sum(len(chunk.addresses) for chunk in plan.chunks()) == plan.hosts == 63 * 127


def test_neighbouring_networks_are_not_asked_one_after_the_other() -> None:
    plan = make_plan(["10.0.0.0/16"], ports=1000)
    order = list(plan.order(7))
    networks = [number // 4 for number in order]  # four chunks of 64 addresses are a /24
    assert sum(one == other for one, other in pairwise(networks)) <= 16
    assert order != list(plan.order(8))


ELSEWHERE = """
import json, sys
from agent.declaration.ports import parse_ports
from agent.workers.scan.grid import Grid
from agent.workers.scan.permute import Permutation
from agent.workers.scan.plan import make_plan
told = json.load(sys.stdin)
plan = make_plan(told["targets"], told["left_out"], ports=told["each"], identity=told["identity"])
assert plan.plan_hash == told["plan_hash"]
grid = Grid("tcp", plan.chunk(told["number"]).addresses, parse_ports(told["ports"]).tcp)
order = Permutation(grid.size, grid.key(plan.piece(told["seed"], told["number"])))
print(json.dumps([list(plan.order(told["seed"])), [grid.probe(at) for at in order.items(0, grid.size)]]))
"""


def test_any_chunk_can_be_made_elsewhere_from_the_hash_of_the_plan_the_seed_and_its_number() -> None:
    """By another process: no order rests on the hashes of Python, which differ from one to the next."""
    ports = "22,80,8000-8004"
    identity = ("ports", ports, "auto")
    plan = make_plan(["fd00::/121", "10.0.0.0/24"], ["10.0.0.7"], ports=7, identity=identity)
    number, seed = list(plan.order(99))[2], 99
    told = {"targets": ["10.0.0.0/24", "fd00::/121"], "left_out": ["10.0.0.7"], "ports": ports, "each": 7}
    told |= {"identity": identity, "plan_hash": plan.plan_hash, "seed": seed, "number": number}
    said = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=json.dumps(told), capture_output=True, text=True, check=True
    )
    grid = Grid("tcp", plan.chunk(number).addresses, ((22, 22), (80, 80), (8000, 8004)))
    order = Permutation(grid.size, grid.key(plan.piece(seed, number)))
    probes = [list(grid.probe(at)) for at in order.items(0, grid.size)]
    assert json.loads(said.stdout) == [list(plan.order(seed)), probes]


def test_what_is_asked_is_part_of_the_plan() -> None:
    one = make_plan(["10.0.0.0/24"], ports=1024, identity=("ports", "1-1024"))
    assert one.plan_hash != make_plan(["10.0.0.0/24"], ports=1024, identity=("services", "1-1024")).plan_hash
    assert one.plan_hash != make_plan(["10.0.0.0/25"], ports=1024, identity=("ports", "1-1024")).plan_hash
    assert one.plan_hash == make_plan(["10.0.0.0/24"], ports=1024, identity=("ports", "1-1024")).plan_hash


def test_chunks_shrink_as_ports_grow() -> None:
    assert [make_plan(["10.0.0.0/24"], ports=ports).chunk_count for ports in (0, 1, 1024, 2048, 65_535)] == [
        4,
        4,
        4,
        4,
        16,
    ]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1) | st.integers(0, 2**128 - 1))
def test_an_address_outside_the_own_networks_is_never_planned_unless_named(value: int) -> None:
    address = ip_address(value)
    own = any(address in network for network in OWN if network.version == address.version)
    never = any(address in network for network, _ in NEVER if network.version == address.version)
    if own and not never:
        assert addresses(make_plan([str(address)])) == [str(address)]
        return
    with pytest.raises(ConfigurationError, match=str(address)):
        make_plan([str(address)])
    if never:
        with pytest.raises(ConfigurationError, match="never scanned"):
            make_plan([str(address)], allow_public=["0.0.0.0/0", "::/0"])
    else:
        assert addresses(make_plan([str(address)], allow_public=[str(address)])) == [str(address)]


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "169.254.169.254",
        "169.254.0.0/16",
        "::",
        "ff02::1",
        "::ffff:10.0.0.1",
        "fd00:ec2::254",
        "fd00:ec2::/112",
    ],
)
def test_forbidden_addresses_are_refused_whatever_is_allowed(text: str) -> None:
    with pytest.raises(ConfigurationError, match="never scanned"):
        make_plan([text], allow_public=["0.0.0.0/0", "::/0"])


def test_a_network_is_scanned_around_the_forbidden_addresses_that_are_excluded() -> None:
    plan = make_plan(["169.254.169.252/30"], exclude=["169.254.169.253-169.254.169.254"])
    assert addresses(plan) == ["169.254.169.252", "169.254.169.255"]


def test_a_network_that_reaches_beyond_the_own_ones_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"172\.32\.0\.0 is public"):
        make_plan(["172.31.255.0/24", "172.32.0.0/24"])
    with pytest.raises(ConfigurationError, match="public"):
        make_plan(["8.8.8.0/24"], allow_public=["8.8.8.0/25"])


@pytest.mark.parametrize(
    "text",
    [
        "example.org",
        "10.0.0.1 8.8.8.8",
        "10.0.0.1\n8.8.8.8",
        "-iL",
        "10.0.0.1/24",
        "10.0.0.1-9",
        "",
        "fe80::1%",
        "fe80::1%eth0 x",
        "fe80::1%eth0\n8.8.8.8",
        "fe80::1%eth0/64",
        "fe80::1%sixteencharacter",
        "fd00::1%eth0",
        "10.0.0.1%eth0",
    ],
)
def test_what_is_not_an_address_or_network_is_refused(text: str) -> None:
    for arguments in ([[text]], [["10.0.0.0/24"], [text]], [["10.0.0.0/24"], [], [text]]):
        with pytest.raises(ConfigurationError, match="not a") as failure:
            make_plan(*arguments)
        assert "\n" not in str(failure.value)


def test_link_local_addresses_keep_their_interface_and_never_share_a_chunk_with_another() -> None:
    plan = make_plan(["fe80::2%eth1", "fe80::1%eth0", "fe80::2%eth0", "fe80::3%eth0", "fd00::1"], exclude=["fe80::3"])
    assert [chunk.addresses for chunk in plan.chunks()] == [
        ("fd00::1",),
        ("fe80::1%eth0", "fe80::2%eth0"),
        ("fe80::2%eth1",),
    ]


def test_too_many_addresses_are_refused_without_listing_them() -> None:
    with pytest.raises(ConfigurationError, match="are 18446744073709551616 addresses, at most 65536"):
        make_plan(["fd00::/64"])


@settings(deadline=None)
@given(ranges, ranges)
def test_ranges_are_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    def points(ranges: tuple[tuple[int, int], ...]) -> set[int]:
        return {point for low, high in ranges for point in range(low, high + 1)}

    merged = merge(left)
    assert points(merged) == points(tuple(left))
    assert all(one[1] + 1 < other[0] for one, other in pairwise(merged))
    rest = without(merged, merge(right))
    assert points(rest) == points(merged) - points(tuple(right))
    assert rest == merge(rest)
