"""Addresses that answer from another MAC."""

from __future__ import annotations

import pytest

from agent.workers.watch.row import Row
from agent.workers.watch.sources import Claim, Scanned
from tests.workers.watch.scenes import DAY, HOUR, NOW, WEB, expect, known, rows, scan

A, B, C = (f"02:00:00:00:00:0{digit}" for digit in "abc")


def claim(mac: str, first: float, last: float, interface: str = "eth0") -> Claim:
    return Claim("edge", interface, 0, WEB, mac, first, last)


def found(*claims: Claim, scanned: Scanned | None = None, expected: bool = False) -> list[Row]:
    return rows(
        claims=claims,
        scans=(scanned,) if scanned else (),
        expectations=(expect(),) if expected else (),
    )


def test_two_at_once_is_grave() -> None:
    (row,) = found(claim(A, NOW - 9 * DAY, NOW - 60), claim(B, NOW - HOUR, NOW))
    assert (row.severity, row.key, row.since) == ("high", f"other_mac {WEB}", NOW - HOUR)
    assert row.what == f"{A} and {B} both answer for it"
    (back,) = found(claim(A, NOW - 9 * DAY, NOW), claim(B, NOW - HOUR, NOW - 60))
    assert (back.severity, back.since, back.what) == ("high", NOW - HOUR, f"{B} and {A} both answer for it")
    assert [one.text for one in row.evidence] == [f"edge/eth0: {A}", f"edge/eth0: {B}"]


@pytest.mark.parametrize(("expected", "severity"), [(True, "medium"), (False, "low")])
def test_one_after_the_other_is_less_so(expected: bool, severity: str) -> None:
    (row,) = found(claim(A, NOW - 9 * DAY, NOW - 2 * HOUR), claim(B, NOW - HOUR, NOW), expected=expected)
    assert (row.severity, row.what) == (severity, f"answered from {A}, and now from {B}")
    assert row.expectations == (("web",) if expected else ())


def test_what_has_changed_hands_long_ago_is_what_is() -> None:
    assert found(claim(A, NOW - 9 * DAY, NOW - 2 * DAY), claim(B, NOW - 3 * DAY, NOW)) == []


def test_an_address_on_two_links_is_two() -> None:
    assert found(claim(A, NOW - DAY, NOW), claim(B, NOW - DAY, NOW, "eth1")) == []


def test_a_scan_that_was_answered_by_another() -> None:
    before = scan(known(mac=C, at=NOW - 2 * HOUR))
    (row,) = found(claim(A, NOW - HOUR, NOW), scanned=before)
    assert (row.severity, row.what) == ("low", f"answered the scan from {C}, and others from {A}")
    after = scan(known(mac=C, at=NOW - 60))
    (row,) = found(claim(A, NOW - HOUR, NOW - 120), scanned=after)
    assert row.what == f"answered from {A}, and then the scan from {C}"
    assert row.depends == {"scan lan_scan", "capture edge"}
    assert found(claim(A, NOW - HOUR, NOW), scanned=scan(known(mac=A))) == []
    assert found(claim(A, NOW - 9 * DAY, NOW), scanned=scan(known(mac=C, at=NOW - 2 * DAY))) == []
