"""What a unit makes of what its worker says, and of effects that fail."""

from __future__ import annotations

import asyncio

import pytest

from agent.supervisor.lifecycle import Phase
from tests.supervisor.conftest import Host, until


def test_status_figures_and_events_of_a_worker_are_taken_over(host: Host) -> None:
    host.supervise("""
[service.talker]
kind = "command"
command = ["/bin/sh", "-c", '''
systemd-notify --ready --status="serving 7" \\
  'X_FIGURES={"clients": 7}' 'X_EVENT={"kind": "client_came", "message": "the seventh", "data": {"number": 7}}'
exec sleep 86791
''']
ready = "notify"
""")
    until(host.loop, lambda: host.report("talker").figures)
    report = host.report("talker")
    assert (report.message, report.figures) == ("serving 7", {"clients": 7})
    event = next(event for event in host.events.last(100, "talker") if event.kind == "client_came")
    assert (event.message, event.data["number"]) == ("the seventh", 7)


def test_a_flood_of_events_is_bounded(host: Host) -> None:
    host.supervise("""
[service.flood]
kind = "command"
command = ["/bin/sh", "-c", '''
for i in $$(seq 90); do systemd-notify 'X_EVENT={"kind": "noise", "message": "again"}'; done
systemd-notify --ready; exec sleep 86792
''']
ready = "notify"
""")
    assert 50 <= host.kinds("flood").count("noise") < 90


def test_what_a_run_said_before_it_died_is_not_put_down_to_the_next(host: Host) -> None:
    host.supervise("""
[service.liar]
kind = "command"
command = ["/bin/sh", "-c", '''
if [ -e "$$SERVICE_DATA/again" ]; then exec sleep 86793; fi
touch "$$SERVICE_DATA/again"; systemd-notify --no-block READY=1 STATUS=up; kill -9 $$$$
''']
ready = "notify"
start_timeout = "20s"
enabled = false
""")
    host.act("start", "liar", wait=False)
    unit = host.supervisor.unit("liar")
    until(host.loop, lambda: unit.state.run == 2)
    host.loop.run_until_complete(asyncio.sleep(0.1))
    assert (unit.phase, unit.status_text) == (Phase.STARTING, "")
    host.act("stop", "liar")


def test_an_effect_that_fails_costs_no_other(
    host: Host, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    loop.set_exception_handler(lambda loop, context: failed.append(context["message"]))
    host.supervise("""
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 86794; done"]
stop_timeout = "200ms"
""")
    unit = host.supervisor.unit("deaf")
    assert unit.run is not None

    def fail(number: int) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(unit.run, "signal", fail)
    assert host.act("stop", "deaf").ok
    assert failed == ["deaf: cannot perform Signal(run=1)"]


def test_a_bug_while_it_starts_is_a_failed_start_and_no_service_without_a_state(
    host: Host, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    loop.set_exception_handler(lambda loop, context: failed.append(context["message"]))
    made = host.supervise_later('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86795"]\nrestart = "no"\n')

    def fail(*arguments: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(made, "contain", fail)
    loop.run_until_complete(made.start())
    assert host.report("calm").state == "failed"
    assert host.report("calm").message == "cannot start: a bug"
    assert failed == ["cannot start calm"]
    monkeypatch.undo()
    assert host.act("start", "calm").ok
