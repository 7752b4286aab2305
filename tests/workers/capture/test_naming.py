"""Names of segments and of interfaces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.naming import CLOSED, OPEN, parse_name, segment_name, valid_interface

suffixes = st.sampled_from([OPEN, CLOSED])
# A timestamp of a pcap file has 32 bits of seconds.
instants = st.integers(0, 2**32 * 10**9 - 1)


def test_a_name_reads_as_a_date() -> None:
    assert segment_name(1_795_183_200_123_456_789, CLOSED) == "20261120T140000.123456Z.pcap"


@given(instants, suffixes)
def test_a_name_tells_the_instant_to_the_microsecond(instant: int, suffix: str) -> None:
    assert parse_name(segment_name(instant, suffix)) == (instant // 1000 * 1000, suffix)


@given(instants, instants)
def test_names_sort_as_time_does(one: int, other: int) -> None:
    if one // 1000 < other // 1000:
        assert segment_name(one, CLOSED) < segment_name(other, CLOSED)


@given(
    st.text()
    | st.from_regex(r"\d{8}T\d{6}\.\d{6}Z\.(pcap|part)", fullmatch=True)
    | st.tuples(instants, suffixes, st.integers(0, 30), st.characters()).map(
        lambda drawn: segment_name(*drawn[:2])[: drawn[2]] + drawn[3] + segment_name(*drawn[:2])[drawn[2] + 1 :]
    )
)
def test_only_the_exact_form_is_ours(name: str) -> None:
    parsed = parse_name(name)
    assert parsed is None or segment_name(*parsed) == name


@given(st.text(max_size=20))
def test_a_valid_interface_name_is_one_safe_path_component(name: str) -> None:
    if valid_interface(name):
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert "\0" not in name
        assert len(name.encode()) <= 15


def test_names_that_interfaces_bear_are_valid() -> None:
    for name in ("lo", "eth0", "enp0s31f6", "br-0123456789ab", "eth0.100", "wg_x", "any"):
        assert valid_interface(name)
    for name in ("", ".", "..", "a/b", "eth0:1", "a b", "0123456789abcdef"):
        assert not valid_interface(name)
