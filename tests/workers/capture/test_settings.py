"""Settings that cannot work are refused before anything is opened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.model import Capture, Reserve, Rotate
from agent.errors import ConfigurationError
from agent.workers.capture.settings import settings


def declared(**changes: object) -> Capture:
    return Capture(**{"name": "edge", "interfaces": ("lo",), **changes})  # type: ignore[arg-type]  # any wrong value


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"interfaces": ()}, "interfaces"),
        ({"interfaces": ("eth0", "eth0")}, "interfaces"),
        ({"interfaces": ("../etc",)}, "interfaces"),
        ({"filter": "tcp\0 or udp"}, "filter"),
        ({"filter": " or ".join(["tcp"] * 1000)}, "filter"),
        ({"snaplen": 0}, "snaplen"),
        ({"snaplen": 262_145}, "snaplen"),
        ({"ring": 1}, "ring"),
        ({"ring": 2**31}, "ring"),
        ({"budget": 1000}, "budget"),
        ({"rotate": Rotate(every=0.0)}, "rotate.every"),
        ({"rotate": Rotate(every=float("nan"))}, "rotate.every"),
        ({"rotate": Rotate(every=float("inf"))}, "rotate.every"),
        ({"rotate": Rotate(size=0)}, "rotate.size"),
        ({"min_free": Reserve(share=1.0)}, "min_free"),
        ({"min_free": Reserve(bytes=-1)}, "min_free"),
        ({"min_free": Reserve(share=float("nan"))}, "min_free"),
        ({"max_age": 0.0}, "max_age"),
        ({"max_age": float("nan")}, "max_age"),
    ],
)
def test_a_value_that_cannot_work_is_named(changes: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^service\.edge\.{where}: ") as raised:
        settings(declared(**changes))
    assert "\n" not in str(raised.value)


def test_what_is_declared_arrives() -> None:
    made = settings(declared(snaplen=96, promiscuous=True, ring=2**20, filter="tcp", rotate=Rotate(2**20, 1.5)))
    assert (made.options.snaplen, made.options.promiscuous, made.options.ring) == (96, True, 2**20)
    assert made.options.filter == "tcp"
    assert settings(declared(budget=2**30, min_free=Reserve(bytes=7), max_age=1.5)).limits == (
        2**30,
        7,
        0.0,
        1_500_000_000,
    )
    assert (made.cut(1).limit, made.cut(1).every, made.cut(1).record) == (2**20, 1_500_000_000, 112)


@given(
    st.integers(-10, 2**50),
    st.integers(-10, 2**40),
    st.floats() | st.floats(0.1, 10**6),
    st.integers(-10, 300_000),
    st.integers(-10, 2**32) | st.just(2**24),
)
def test_any_numbers_either_work_or_are_refused(budget: int, size: int, every: float, snaplen: int, ring: int) -> None:
    service = declared(budget=budget, rotate=Rotate(size, every), snaplen=snaplen, ring=ring)
    try:
        made = settings(service)
    except ConfigurationError:
        return
    assert made.cut(1).limit > 0
    assert made.cut(1).every > 0
    assert made.cut(1).limit + made.cut(1).headroom <= budget
