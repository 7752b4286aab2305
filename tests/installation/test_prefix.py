"""Prefixes that can be, and those that cannot."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.installation.prefix import checked

WORDS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,12}", fullmatch=True)


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ("/srv", "/srv"),
        ("/srv/", "/srv"),
        ("/opt/my.agent-2+x_y//", "/opt/my.agent-2+x_y"),
        ("/var/agent", "/var/agent"),
        ("/homes/agent", "/homes/agent"),
    ],
)
def test_a_plain_absolute_path_is_taken(given_: str, meant: str) -> None:
    assert checked(given_) == meant


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("srv", "absolute path"),
        ("", "absolute path"),
        ("~/agent", "absolute path"),
        ("/", "directory of the system"),
        ("/usr/", "directory of the system"),
        ("/var", "directory of the system"),
        ("/srv/a b", "letters"),
        ("/srv/%h", "letters"),
        ("/srv/a\nb", "letters"),
        ("/srv/$HOME", "letters"),
        ("/srv/ä", "letters"),
        ("/srv//a", "letters"),
        ("/srv/../etc", "letters"),
        ("/srv/.hidden", "letters"),
        ("/srv/-x", "letters"),
        ("/srv/a\0", "letters"),
        ("/home/joe/agent", "hidden from the service"),
        ("/root", "hidden from the service"),
        ("/tmp/agent", "hidden from the service"),
        ("/var/tmp/agent/", "hidden from the service"),
        ("/run/agent", "next boot"),
        ("/proc/1/root", "next boot"),
    ],
)
def test_everything_else_is_refused_with_what_would_be_right(prefix: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        checked(prefix)


@given(st.text() | st.lists(WORDS | st.text(max_size=5)).map(lambda words: "/" + "/".join(words)))
def test_what_is_taken_means_itself_in_every_file_of_systemd(prefix: str) -> None:
    try:
        found = checked(prefix)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert re.fullmatch(r"(/[A-Za-z0-9_][A-Za-z0-9._+-]*)+", found)
        assert checked(found) == found and prefix.rstrip("/") == found
