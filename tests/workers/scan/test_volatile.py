"""What a service says anew each time is no news; what identifies it is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan import volatile


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (
            "http-headers",
            "Date: Sun, 06 Nov 1994 08:49:37 GMT Server: x",
            "Date: Mon, 07 Nov 1994 08:49:38 GMT Server: x",
        ),
        ("http-headers", "Set-Cookie: id=1a; Path=/ Server: x", "Set-Cookie: id=2b; Path=/ Server: x"),
        ("http-title", "Status at 2026-11-27T16:00:01Z", "Status at 2026-11-28T04:10:59Z"),
        ("http-title", "Wed Nov 25 10:00:00 2026", "Fri Nov 27 11:00:00 2026"),
        ("banner", "220 ready 9f86d081884c7d659a2feaa0c55ad015", "220 ready 60303ae22b998861bce3b28f33eec1be"),
        ("upnp-info", "uuid 123e4567-e89b-12d3-a456-426614174000", "uuid 123e4567-e89b-12d3-a456-426614174999"),
        (
            "mysql-info",
            "Version: 8.0 Thread ID: 41 Salt: a_b Status: x",
            "Version: 8.0 Thread ID: 42 Salt: c)d Status: x",
        ),
        ("redis-info", "Version: 7.0 Uptime: 5 seconds Role: master", "Version: 7.0 Uptime: 17 seconds Role: master"),
        ("ssl-date", "TLS randomness does not represent time", "2026-11-27T16:00:01+00:00; 0s from scanner time."),
        ("fingerprint-strings", "GetRequest: a", "GetRequest: b"),
    ],
)
def test_what_changes_each_time_is_the_same(name: str, one: str, other: str) -> None:
    assert volatile.script(name, one) == volatile.script(name, other)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (
            "http-headers",
            "Date: Sun, 06 Nov 1994 08:49:37 GMT Server: x",
            "Date: Sun, 06 Nov 1994 08:49:37 GMT Server: y",
        ),
        ("mysql-info", "Version: 8.0 Thread ID: 41", "Version: 8.1 Thread ID: 41"),
        ("redis-info", "Version: 7.0 Uptime: 5 seconds Role: master", "Version: 7.0 Uptime: 5 seconds Role: slave"),
        (
            "ssh-hostkey",
            "256 9f86d081884c7d659a2feaa0c55ad015 (ED)",
            "256 60303ae22b998861bce3b28f33eec1be (ED)",
        ),
        ("ssl-cert", "Not valid after: 2026-11-27T16:00:01", "Not valid after: 2027-11-27T16:00:01"),
        ("http-title", "Welcome", "Moved"),
    ],
)
def test_what_says_that_something_is_another_stays(name: str, one: str, other: str) -> None:
    assert volatile.script(name, one) != volatile.script(name, other)


def test_a_date_may_be_the_version_and_a_moment_is_not() -> None:
    assert volatile.remark("release 2024-01-16") == "release 2024-01-16"
    assert volatile.remark("up since 2024-01-16 10:11:12") == volatile.remark("up since 2024-02-16 11:11:12")


@given(st.sampled_from(sorted(volatile._OF_SCRIPT)), st.text(max_size=300))
def test_saying_it_twice_makes_no_difference(name: str, text: str) -> None:
    once = volatile.script(name, text)
    assert volatile.script(name, once) == once


@pytest.mark.parametrize("word", ["a", "Mon ", "date: ", "0a", "Uptime: A B C D ", " A: ", "used memory "])
def test_a_hostile_text_takes_no_longer_than_another(word: str) -> None:
    text = word * (4096 // len(word))
    began = time.process_time()
    for name in volatile._OF_SCRIPT:
        volatile.script(name, text)
    assert time.process_time() - began < 5  # a pattern that goes astray takes ages
