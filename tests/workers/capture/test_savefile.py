"""Where the last whole record of a pcap file ends."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture import savefile
from agent.workers.capture.savefile import (
    Format,
    Walk,
    first_instant,
    link_type,
    parse_header,
    snapshot_length,
    whole_records,
)

orders = st.sampled_from(["<", ">"])
records = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**9 - 1), st.binary(max_size=60)), max_size=12)
Records = list[tuple[int, int, bytes]]


def encoded(order: str, content: Records) -> list[bytes]:
    return [
        struct.pack(order + "IIII", seconds, fraction, len(data), len(data) + 1) + data
        for seconds, fraction, data in content
    ]


@given(orders, records, st.integers(0, 2000))
def test_a_file_cut_anywhere_is_whole_up_to_the_last_record_that_fits(order: str, content: Records, cut: int) -> None:
    parts = encoded(order, content)
    data = b"".join(parts)[:cut]
    fitting = 0
    while fitting < len(parts) and len(b"".join(parts[: fitting + 1])) <= len(data):
        fitting += 1
    expected = Walk(len(b"".join(parts[:fitting])), fitting, damaged=False)
    assert whole_records(data, Format(order, 1)) == expected  # type: ignore[arg-type]  # sampled_from loses the literal


@given(orders, records, st.binary(max_size=100))
def test_what_comes_after_never_makes_the_whole_part_shorter(order: str, content: Records, junk: bytes) -> None:
    whole = b"".join(encoded(order, content))
    walk = whole_records(whole + junk, Format(order, 1))  # type: ignore[arg-type]  # sampled_from loses the literal
    assert walk.length >= len(whole)
    assert walk.records >= len(content)
    assert walk.length <= len(whole + junk)


def test_pages_of_zeros_left_by_a_power_failure_are_no_records() -> None:
    (record,) = encoded("<", [(1, 2, b"abc")])
    assert whole_records(record + bytes(4096), Format("<", 1)) == Walk(len(record), 1, damaged=True)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1).filter(lambda length: length > savefile.LONGEST_CAPTURE))
def test_a_length_that_libpcap_never_writes_is_damage(seconds: int, captured: int) -> None:
    header = struct.pack("<IIII", seconds, 0, captured, captured)
    assert whole_records(header + bytes(100), Format("<", 1)) == Walk(0, 0, damaged=True)


@given(orders, st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 10**6 - 1))
def test_both_byte_orders_and_both_precisions_are_understood(
    order: str, nano: bool, seconds: int, fraction: int
) -> None:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    form = parse_header(struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1))
    assert form is not None
    record = struct.pack(order + "IIII", seconds, fraction, 0, 1)
    assert first_instant(form, record) == seconds * 10**9 + fraction * (1 if nano else 1000)


@given(st.binary(max_size=40))
def test_anything_else_is_no_pcap_file(data: bytes) -> None:
    form = parse_header(data)
    magics = {struct.pack(order + "I", magic) for order in "<>" for magic in (0xA1B2C3D4, 0xA1B23C4D)}
    assert (form is not None) == (len(data) >= 24 and data[:4] in magics)


@given(orders, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_header_says_what_packets_begin_with_and_how_much_of_them_there_is(
    order: str, kind: int, length: int
) -> None:
    header = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, length, kind)
    form = parse_header(header)
    assert form
    assert (link_type(form, header), snapshot_length(header), snapshot_length(bytes(24))) == (kind, length, 0)
