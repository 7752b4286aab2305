"""Another version that does not work is refused, or gives the process back: nothing is lost, and the way is free."""

from __future__ import annotations

from tests.acceptance.versions import COUNTING, Versions, numbers, pids, upgrade
from tests.harness import Agent, wait_until


def test_a_version_that_cannot_take_over_gives_the_process_back(agent: Agent, versions: Versions) -> None:
    versions.make(
        "1.1.0",
        supervisor__unit=(
            "        host = self._host\n        self.state",
            "        raise LookupError('no such thing')\n        self.state",
        ),
    )
    agent.declare(COUNTING)
    agent.start()
    process, before = agent.pid, pids(agent)
    wait_until(lambda: len(numbers(agent)) > 10)
    versions.install("1.1.0")
    done = agent.ctl("reload")
    assert done.returncode == 2
    assert "1.0.0 runs on: the version to follow could not take over" in done.stderr
    assert "version 1.1.0 cannot take over: no such thing" in done.stderr
    assert agent.status()["agent"]["version"] == "1.0.0"
    assert (agent.pid, pids(agent)) == (process, before)
    seen = len(numbers(agent))
    wait_until(lambda: len(numbers(agent)) > seen + 10)
    found = numbers(agent)
    assert found == list(range(1, len(found) + 1))
    assert [event["kind"] for event in agent.events()].count("handover_failed") == 1
    assert "LookupError" in (agent.prefix / "log" / "agent.log").read_text()


def test_a_state_of_a_later_format_is_given_back(agent: Agent, versions: Versions) -> None:
    versions.make("2.0.0", control__baton=("FORMAT = 1\n", "FORMAT = 2\n"))
    versions.install("2.0.0")
    agent.declare(COUNTING)
    agent.start()
    before = pids(agent)
    versions.install("1.0.0")
    done = agent.ctl("reload")
    assert done.returncode == 2
    assert "the state is of format 2, and this version reads up to 1" in done.stderr
    assert agent.status()["agent"]["version"] == "2.0.0"
    assert pids(agent) == before


def test_a_declaration_with_mistakes_is_refused_before_anything_is_touched(agent: Agent, versions: Versions) -> None:
    versions.make("1.1.0")
    agent.declare(COUNTING)
    agent.start()
    before = pids(agent)
    versions.install("1.1.0")
    agent.declare(COUNTING + 'restart = "sometimes"\n')
    done = agent.ctl("reload")
    assert done.returncode == 1
    assert "service.counting.restart" in done.stderr
    assert agent.status()["agent"]["version"] == "1.0.0"
    assert pids(agent) == before


def test_a_version_that_fails_its_self_test_is_refused_before_anything_is_touched(
    agent: Agent, versions: Versions
) -> None:
    first = "from __future__ import annotations\n"
    versions.make("1.1.0", cli__main=(first, f"{first}raise SystemExit('this one is broken')\n"))
    agent.declare(COUNTING)
    agent.start()
    before = pids(agent)
    versions.install("1.1.0")
    done = agent.ctl("--prefix", str(agent.prefix), "status")
    assert done.stderr == "this one is broken\n"
    versions.call("1.0.0")
    done = agent.ctl("reload")
    assert done.returncode == 2
    assert "fails its self-test (exited 1): this one is broken" in done.stderr
    assert agent.status()["agent"]["version"] == "1.0.0"
    assert pids(agent) == before
    assert "upgrade_refused" in [event["kind"] for event in agent.events()]


def test_one_that_fails_leaves_the_declaration_as_it_was_made_true(agent: Agent, versions: Versions) -> None:
    versions.make(
        "1.1.0",
        linux__clock=(
            "    def __init__(self",
            "    def __init__(self) -> None:\n        raise OSError(24, 'no more')\n\n    def _old(self",
        ),
    )
    agent.declare(COUNTING)
    agent.start()
    versions.install("1.1.0")
    agent.declare(COUNTING + '[service.more]\nkind = "command"\ncommand = ["/bin/sleep", "86453"]\n')
    done = agent.ctl("reload")
    assert done.returncode == 2
    assert "version 1.1.0 cannot take over: [Errno 24] no more" in done.stderr
    assert agent.status()["agent"]["state"] == "running"
    assert list(pids(agent)) == ["counting"]
    versions.install("1.0.0")
    assert agent.ctl("reload").stdout.startswith("more: started")


def test_a_version_that_cannot_even_be_the_agent_is_refused(agent: Agent, versions: Versions) -> None:
    versions.make("1.1.0", control__daemon=("import asyncio\n", "import asyncio\nimport no_such_module\n"))
    agent.declare(COUNTING)
    agent.start()
    before = pids(agent)
    versions.install("1.1.0")
    done = agent.ctl("reload")
    assert done.returncode == 2
    assert "fails its self-test (exited 2): control: ModuleNotFoundError" in done.stderr
    assert (agent.status()["agent"]["version"], pids(agent)) == ("1.0.0", before)


def test_one_that_fails_before_it_has_begun_leaves_the_way_free_for_the_next(agent: Agent, versions: Versions) -> None:
    duplicated = "        kept = self._listening.dup()\n"
    versions.make(
        "0.9.0",
        control__server=(
            duplicated,
            "        if not self._turned_away:\n"
            "            self._turned_away = 1\n"
            "            raise OSError(24, 'no more')\n" + duplicated,
        ),
    )
    versions.install("0.9.0")
    agent.declare(COUNTING)
    agent.start()
    before = pids(agent)
    report = upgrade(agent)
    assert (report["state"], report["message"]) == ("failed", "nobody could take over: [Errno 24] no more")
    assert agent.status()["agent"]["state"] == "running"
    agent.event("handover_failed")
    assert upgrade(agent)["state"] == "done"
    assert pids(agent) == before
