"""What children say is understood when it is well-formed, and harmless when it is not."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agent.supervisor.notices import FIGURES_LIMIT, MESSAGE_LIMIT, STATUS_LIMIT, ChildEvent, Notice, understand

FIELDS = st.dictionaries(
    st.sampled_from(["READY", "STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "X_FIGURES", "X_EVENT", "MAINPID"]),
    st.text(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=20).map(json.dumps),
)


@given(FIELDS)
def test_no_message_is_refused_with_an_exception_and_none_gets_through_unbounded(fields: dict[str, str]) -> None:
    notice = understand(fields)
    if notice.status is not None:
        assert len(notice.status) <= STATUS_LIMIT
        assert notice.status.isprintable()
    if notice.event is not None:
        assert len(notice.event.message) <= MESSAGE_LIMIT
    if notice.figures is not None:
        assert len(notice.figures) <= FIGURES_LIMIT
    if notice.extend is not None:
        assert 0 <= notice.extend <= 3600


@given(
    st.dictionaries(st.text(max_size=80), st.none() | st.integers() | st.text(max_size=400) | st.lists(st.integers()))
)
def test_figures_are_scalars_under_plain_names(found: dict[str, object]) -> None:
    figures = understand({"X_FIGURES": json.dumps(found)}).figures
    assert figures is not None
    for name, value in figures.items():
        assert name.isascii()
        assert value is None or isinstance(value, int | float | str)


def test_the_words_of_sd_notify_mean_what_they_mean_to_systemd() -> None:
    assert understand({"READY": "1", "STATUS": "serving"}) == Notice(ready=True, status="serving")
    assert understand({"READY": "0"}) == Notice()
    assert understand({"WATCHDOG": "1"}) == Notice(beat=True)
    assert understand({"WATCHDOG": "trigger"}) == Notice()
    assert understand({"EXTEND_TIMEOUT_USEC": "2500000"}).extend == 2.5
    for nonsense in ("-1", "1e9", "", "٣", "9" * 19):
        assert understand({"EXTEND_TIMEOUT_USEC": nonsense}).extend is None


def test_a_workers_event_keeps_its_kind_message_and_scalars() -> None:
    sent = {"kind": "scan_finished", "message": "3 open\nports", "data": {"open": 3, "deep": {"no": 1}}}
    assert understand({"X_EVENT": json.dumps(sent)}).event == ChildEvent("scan_finished", "3 open ports", {"open": 3})


def test_an_event_without_a_plain_kind_is_dropped() -> None:
    for kind in ("", "Scan", "a b", "x" * 41, 7):
        assert understand({"X_EVENT": json.dumps({"kind": kind, "message": "m"})}).event is None
