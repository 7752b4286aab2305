"""What a reload does to each service, and why."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.model import AnyService, Capture, Command, Heartbeat, Limits, LogPolicy, Timer
from agent.supervisor.plan import LIVE, Action, differences, plan

NAMES = st.sampled_from(["api", "database", "edge", "web"])
COMMANDS = st.builds(
    Command,
    name=st.just("x"),
    command=st.sampled_from([("/bin/true",), ("/bin/false",)]),
    enabled=st.booleans(),
    restart=st.sampled_from(["always", "no"]),
    stop_timeout=st.sampled_from([1.0, 2.0]),
    user=st.sampled_from([None, "nobody"]),
    capabilities=st.sampled_from([None, (), ("CAP_NET_RAW",)]),
    log=st.sampled_from([LogPolicy(), LogPolicy(size=1)]),
    heartbeat=st.sampled_from([None, Heartbeat()]),
    limits=st.sampled_from([Limits(), Limits(pids=5)]),
    timer=st.sampled_from([None, Timer("every 1s", every=1.0), Timer("every 2s", every=2.0)]),
)
CAPTURES = st.builds(Capture, name=st.just("x"), interfaces=st.sampled_from([("lo",), ("eth0",)]))


def declarations() -> st.SearchStrategy[dict[str, AnyService]]:
    return st.dictionaries(NAMES, COMMANDS | CAPTURES).map(
        lambda found: {name: msgspec.structs.replace(service, name=name) for name, service in found.items()}
    )


def command(name: str = "api", **keys: Any) -> Command:
    return Command(name=name, command=("/bin/true",), **keys)


@given(declarations(), declarations())
def test_every_service_gets_exactly_one_action_and_the_result_is_what_was_declared(
    desired: dict[str, AnyService], running: dict[str, AnyService]
) -> None:
    actions = plan(desired, running)
    assert [action.name for action in actions] == sorted(desired.keys() | running.keys())
    state = dict(running)
    for action in actions:
        if action.verb == "stop":
            assert action.name not in desired
            del state[action.name]
        elif action.verb == "keep":
            assert state[action.name] == desired[action.name]
        else:
            assert state.get(action.name) != desired[action.name]
            state[action.name] = desired[action.name]
    assert state == desired


@given(declarations())
def test_a_declaration_that_has_not_changed_changes_nothing(declared: dict[str, AnyService]) -> None:
    assert all(action.verb == "keep" and not action.because for action in plan(declared, declared))


@given(declarations(), declarations())
def test_a_worker_is_kept_only_if_every_difference_is_live(
    desired: dict[str, AnyService], running: dict[str, AnyService]
) -> None:
    for action in plan(desired, running):
        if action.verb == "update":
            assert set(action.because) <= LIVE
        elif action.verb == "restart":
            old, new = running[action.name], desired[action.name]
            assert set(action.because) - LIVE or (old.timer is None) != (new.timer is None)


def test_the_action_names_the_keys_that_caused_it() -> None:
    old = {"api": command(stop_timeout=5.0), "web": command("web")}
    new = {
        "api": command(stop_timeout=6.0, restart="no"),
        "web": command("web", user="nobody", stop_timeout=9.0),
        "edge": command("edge"),
    }
    assert plan(new, old) == [
        Action("api", "update", ("restart", "stop_timeout")),
        Action("edge", "start"),
        Action("web", "restart", ("stop_timeout", "user")),
    ]


def test_another_kind_under_the_same_name_is_a_restart() -> None:
    assert differences(command(), Capture(name="api", interfaces=("lo",))) == ("kind",)


def test_other_capabilities_are_a_restart() -> None:
    for old, new in ((None, ()), ((), ("CAP_CHOWN",)), (("CAP_CHOWN",), None)):
        found = plan({"api": command(capabilities=new)}, {"api": command(capabilities=old)})
        assert found == [Action("api", "restart", ("capabilities",))]


def test_every_live_key_exists() -> None:
    assert {field.name for field in msgspec.structs.fields(Command)} >= LIVE


def test_a_service_that_becomes_a_job_is_restarted_and_a_job_with_another_calendar_is_not() -> None:
    job = command(timer=Timer("every 1s", every=1.0))
    assert plan({"api": job}, {"api": command()}) == [Action("api", "restart", ("timer",))]
    later = command(timer=Timer("every 2s", every=2.0))
    assert plan({"api": later}, {"api": job}) == [Action("api", "update", ("timer",))]
