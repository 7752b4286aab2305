"""``start``, ``stop`` and ``restart``: each outcome is told, and counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.actions import AT_ONCE, each
from tests.cli.harness import Agentctl
from tests.cli.served import AFTER, Served


@pytest.mark.parametrize("action", ["start", "stop", "restart"])
def test_each_outcome_is_one_line(agentctl: Agentctl, served: Served, action: str) -> None:
    served.declare("api")
    served.declare("web")
    done = agentctl(action, "api", "web")
    assert (done.returncode, done.stderr) == (0, "")
    state = next(after for name, after in AFTER.items() if name == action)
    assert sorted(done.stdout.splitlines()) == [f"api: {state}", f"web: {state}"]
    assert sorted(served.done) == [(action, "api", True), (action, "web", True)]


def test_one_that_does_not_come_up_makes_the_exit_code_2_and_the_others_still_start(
    agentctl: Agentctl, served: Served
) -> None:
    for name in ("api", "bad", "web"):
        served.declare(name)
    served.refused["bad"] = "exit code 1: \x1bport in use"
    done = agentctl("start", "api", "bad", "web")
    assert done.returncode == 2
    assert done.stderr == "bad: exit code 1: \\x1bport in use (failed)\n"
    assert len(done.stdout.splitlines()) == 2
    assert {name for _, name, _ in served.done} == {"api", "bad", "web"}


def test_an_unknown_name_is_a_mistake_and_nothing_is_done_to_the_others(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    done = agentctl("stop", "api", "apy")
    assert (done.returncode, done.stdout) == (1, "")
    assert "'apy'" in done.stderr and "did you mean api?" in done.stderr
    assert served.done == []


def test_what_was_declared_since_the_last_reload_is_told_from_what_is_not_declared(
    agentctl: Agentctl, served: Served, prefix: Path
) -> None:
    served.declare("api")
    (prefix / "key").mkdir()
    (prefix / "key/env.toml").write_text('[service.apx]\nkind = "command"\ncommand = ["/bin/true"]\n')
    done = agentctl("start", "apx", "nobody")
    since = "no service is named 'apx' yet; it has been declared since the agent read its declaration: agentctl reload"
    assert (done.returncode, done.stderr) == (1, f"agentctl: {since}; no service is named 'nobody'\n")
    (prefix / "key/env.toml").write_text("[service.apx]\n")
    assert agentctl("start", "nobody").stderr == "agentctl: no service is named 'nobody'\n"


def test_a_name_given_twice_is_asked_once(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    assert agentctl("restart", "api", "api").stdout.count("\n") == 1
    assert len(served.done) == 1


def test_no_wait_is_passed_on(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    agentctl("start", "--no-wait", "api")
    assert served.done == [("start", "api", False)]


def test_json_holds_all_outcomes_in_the_order_asked(agentctl: Agentctl, served: Served) -> None:
    served.declare("web")
    served.declare("api")
    served.refused["api"] = "no"
    done = agentctl("start", "web", "api", "--json")
    outcomes = json.loads(done.stdout)["outcomes"]
    assert (done.returncode, done.stderr) == (2, "")
    assert [(outcome["name"], outcome["action"], outcome["ok"]) for outcome in outcomes] == [
        ("web", "start", True),
        ("api", "start", False),
    ]
    assert outcomes[0].keys() == {"name", "action", "ok", "state", "message", "pid"}


def test_each_does_all_of_more_than_can_be_done_at_once() -> None:
    names = [f"s{number}" for number in range(AT_ONCE * 3)]
    assert dict(each(names, lambda name: {"did": name})) == {name: {"did": name} for name in names}


def test_each_raises_what_went_wrong_instead_of_waiting_for_it() -> None:
    def fail(name: str) -> dict[str, object]:
        raise LookupError(name)

    with pytest.raises(LookupError, match="api"):
        list(each(["api"], fail))
