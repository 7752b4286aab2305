"""What is told of drift: what came and went, the gravest first, and of very many the number."""

from __future__ import annotations

import json

from agent.workers.runtime import FIELD_LIMIT, TEXT_LIMIT
from agent.workers.watch.drift import judge
from agent.workers.watch.drift_events import MOST_TOLD, events
from agent.workers.watch.sources import Sources
from agent.workers.watch.standing import fold
from tests.workers.watch.scenes import NOW, WEB, expect, known, port, scan


def test_what_came_and_what_went_is_told_with_what_shows_it() -> None:
    found = scan(known(port("tcp/80", service="http", product="nginx")))
    sources = Sources(scans=(found,), expectations=(expect(others=False),))
    came = fold({}, judge(sources, NOW), (), NOW)
    (one,) = events(came)
    assert one.kind == "drift_found"
    assert one.message == f"high: {WEB} tcp/80 is open (http nginx) and is not declared"
    assert (one.data["declared"], one.data["scanned"]) == (
        "expect.web: others = false",
        "lan_scan, run 7: open, http nginx",
    )
    assert one.data["expectations"] == "web"
    assert (one.data["key"], one.data["drift"]) == (f"open_undeclared {WEB} tcp/80", "open_undeclared")
    went = fold(came.standing, judge(Sources(), NOW), (), NOW + 60)
    (one,) = events(went)
    assert one.kind == "drift_gone"
    assert one.message == f"no more: {WEB} tcp/80 is open (http nginx) and is not declared"
    assert (one.data["found"], one.data["severity"]) == (NOW, "high")
    assert events(fold(went.standing, judge(Sources(), NOW), (), NOW)) == []


def test_of_a_fallen_switch_the_gravest_are_told_and_the_number_of_the_rest() -> None:
    hosts = [f"10.0.{number >> 8}.{number & 255}" for number in range(1, 301)]
    down = scan(*(known(address=host, state="down") for host in hosts))
    sources = Sources(scans=(down,), expectations=(expect("tcp/22", hosts=tuple(hosts)),))
    came = fold({}, judge(sources, NOW), (), NOW)
    told = events(came)
    assert len(told) == MOST_TOLD + 1
    assert told[-1].message == "high: 280 more differences on 280 hosts (280 high); see `agentctl drift`"
    assert (told[-1].data["more"], told[-1].data["high"]) == (280, 280)
    assert all(value is None or isinstance(value, str | int | float) for one in told for value in one.data.values())
    went = events(fold(came.standing, judge(Sources(), NOW), (), NOW))
    assert len(went) == MOST_TOLD + 1
    assert went[-1].message.startswith("high: 280 more differences are gone on 280 hosts")


def test_whatever_strangers_say_fits_into_what_a_worker_may_tell_at_once() -> None:
    banner = "\U0001f600" * 5000
    found = scan(known(port("tcp/80", service=banner[:255], product=banner, version=banner)))
    opens = tuple(expect(others=False, name=f"e{number}" * 20) for number in range(50))
    came = fold({}, judge(Sources(scans=(found,), expectations=opens), NOW), (), NOW)
    (one,) = events(came)
    told = {"kind": one.kind, "message": one.message[:TEXT_LIMIT], "data": one.data}
    assert len(json.dumps(told)) <= FIELD_LIMIT
    assert one.message.startswith(f"high: {WEB} tcp/80 is open (")
    assert one.data["severity"] == "high"
