"""What is declared and accepted is what the worker can start with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.declaration.capture_limits import LONGEST_FILTER, RING, endless, least_budget, record_limit
from agent.declaration.model import Capture, Declaration
from agent.errors import DeclarationError
from agent.workers.capture.settings import settings as worker_settings

Read = Callable[..., Declaration]


def capture(read: Read, keys: str, interfaces: str = '"lo"') -> Capture:
    service = read(f'[service.x]\nkind = "capture"\ninterfaces = [{interfaces}]\n{keys}').services["x"]
    assert isinstance(service, Capture)
    return service


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 64),
    st.integers(2**15, 2**27) | st.integers(0, 2**50),
    st.integers(2**14, 2**18) | st.integers(0, 2**35),
    st.integers(0, 2**18 + 1),
    st.integers(2**18, 2**21) | st.integers(0, 2**31),
)
def test_every_capture_that_is_accepted_can_start(
    read: Read, count: int, budget: int, size: int, snaplen: int, ring: int
) -> None:
    names = ", ".join(f'"eth{number}"' for number in range(count))
    keys = f"budget = {budget}\nrotate = {{ size = {size} }}\nsnaplen = {snaplen}\nring = {ring}"
    try:
        service = capture(read, keys, names)
    except DeclarationError:
        return
    made = worker_settings(service)
    for interfaces in {1, count, made.most}:
        cut = made.cut(interfaces)
        assert interfaces * cut.most + cut.headroom <= budget


@pytest.mark.parametrize(
    "keys",
    ['filter = "' + "x" * (LONGEST_FILTER + 1) + '"', f"ring = {RING[0] - 1}", 'filter = "ip6 protochain 6"'],
)
def test_what_the_worker_would_refuse_is_refused_before(read: Read, keys: str) -> None:
    with pytest.raises(DeclarationError):
        capture(read, keys)


def test_a_filter_that_may_never_end_is_known_by_its_word() -> None:
    for text in ("protochain 6", "ip6 protochain tcp", "not(ip protochain 51)", "tcp or !protochain 6"):
        assert endless(text), text
    for text in ("", "ip6 proto 6", r"ip proto \protochain", "host protochain.example.org", "host myprotochain"):
        assert not endless(text), text


def test_the_smallest_that_is_accepted_does_start(read: Read) -> None:
    least = least_budget(record_limit(262_144), 1)
    service = capture(
        read, f'ring = "512KiB"\nfilter = "{"x" * LONGEST_FILTER}"\nbudget = {least}\nrotate.size = 16384'
    )
    assert worker_settings(service).options.ring == 512 * 1024


def test_bounds_are_told(read: Read) -> None:
    with pytest.raises(DeclarationError, match='"256KiB" is out of range; write 512KiB to 1GiB'):
        capture(read, 'ring = "256KiB"')
