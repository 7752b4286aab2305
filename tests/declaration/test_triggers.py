"""What makes an armed capture keep what it saw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.triggers import FIGURES, Bound, Watcher, bound, event, matches, parse
from agent.errors import UsageError


@pytest.mark.parametrize("text", ["api.failed", "*.hung", "lan_scan.*", "web[12].exited"])
def test_an_event_is_a_service_and_a_kind_with_wildcards(text: str) -> None:
    assert event(text) == text


@pytest.mark.parametrize("text", ["failed", "api.", ".failed", "api.failed twice", "api failed", "API.failed", ""])
def test_anything_else_is_no_event(text: str) -> None:
    with pytest.raises(UsageError, match=r"SERVICE\.KIND"):
        event(text)


def test_a_bound_is_spelled_in_one_way() -> None:
    assert bound("dropped_kernel>0") == "dropped_kernel > 0"
    assert bound("  lag >= 1.50 ") == "lag >= 1.5"


@pytest.mark.parametrize("text", ["rate", "lag > fast", "lag = 1", "lag > -1", "lag > 1 s", "> 1", "lag > 1e3"])
def test_anything_else_is_no_bound(text: str) -> None:
    with pytest.raises(UsageError, match="a figure, a comparison and a number"):
        bound(text)


def test_a_figure_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"no figure drops; there are received, bytes, .* and lag"):
        bound("drops > 1")


@given(
    st.builds(
        Bound, st.sampled_from(sorted(FIGURES)), st.sampled_from([">", ">=", "<", "<="]), st.integers(0, 10**15 - 1)
    )
)
def test_what_is_written_is_what_is_read(made: Bound) -> None:
    assert parse(str(made)) == made


def test_events_match_by_service_and_kind() -> None:
    assert matches(("api.failed", "*.hung"), "api", "failed")
    assert matches(("api.failed", "*.hung"), "web", "hung")
    assert not matches(("api.failed", "*.hung"), "web", "failed")
    assert not matches((), "api", "failed")


def figures(**values: float) -> dict[str, float]:
    return dict.fromkeys(FIGURES, 0.0) | values


def test_what_grows_is_held_against_a_bound_by_how_much_it_grew_in_a_second() -> None:
    watcher = Watcher(["received > 100"])
    assert watcher.look(figures(received=1000), 0.0) == []
    assert watcher.look(figures(received=1200), 2.0) == []
    assert watcher.look(figures(received=1303), 3.0) == ["received > 100 (it is 103)"]


def test_what_does_not_grow_is_taken_as_it_is() -> None:
    watcher = Watcher(["lag >= 2"])
    assert watcher.look(figures(lag=5), 0.0) == []  # there was no reading before: nothing has been crossed
    assert watcher.look(figures(lag=5), 1.0) == ["lag >= 2 (it is 5)"]


def test_a_bound_that_stays_crossed_is_told_once_and_again_when_it_is_crossed_again() -> None:
    watcher = Watcher(["lag > 1"])
    told = [bool(watcher.look(figures(lag=lag), float(now))) for now, lag in enumerate([0, 2, 3, 1, 0, 2])]
    assert told == [False, True, False, False, False, True]


@pytest.mark.parametrize(("comparison", "crossed"), [(">", [5]), (">=", [4, 5]), ("<", [3]), ("<=", [3, 4])])
def test_each_comparison_means_what_it_says(comparison: str, crossed: list[int]) -> None:
    assert [value for value in (3, 4, 5) if parse(f"lag {comparison} 4").crossed(value)] == crossed
