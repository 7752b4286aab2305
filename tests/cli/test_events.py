"""``events``: what happened, and what happens from now on."""

from __future__ import annotations

import json
import re
import signal

from tests.cli.harness import Agentctl
from tests.cli.served import Served


def test_the_last_ones_are_shown_oldest_first(agentctl: Agentctl, served: Served) -> None:
    for number in range(5):
        served.happen("started", f"number {number}", "api")
    done = agentctl("events", "-n", "2")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  api +started +number 3$", first)
    assert second.endswith("number 4")


def test_those_of_one_service_can_be_chosen(agentctl: Agentctl, served: Served) -> None:
    served.happen("started", "yes", "api")
    served.happen("started", "no", "web")
    served.happen("reloaded", "no")
    assert re.findall(r"yes|no", agentctl("events", "--service", "api").stdout) == ["yes"]
    assert "(agent)" in agentctl("events").stdout


def test_a_service_that_never_was_is_a_mistake_of_the_user(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    served.happen("stopped", "it was", "removed")
    for follow in ([], ["-f"]):
        done = agentctl("events", "--service", "nosuch", *follow)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "agentctl: no service is named nosuch; `agentctl status` lists them\n"
    assert agentctl("events", "--service", "api").returncode == 0, "nothing has happened to it yet"
    assert "it was" in agentctl("events", "--service", "removed").stdout


def test_json_is_one_object_a_line(agentctl: Agentctl, served: Served) -> None:
    served.happen("exited", "code 1", "api")
    served.happen("reloaded", "\x7f\x9b\n")
    events = [json.loads(line) for line in agentctl("events", "--json").stdout.splitlines()]
    assert [event["message"] for event in events] == ["code 1", "\x7f\x9b\n"]
    assert events[0].keys() == {"cursor", "time", "service", "kind", "message", "data"}


def test_following_shows_each_as_it_happens_until_ctrl_c_which_is_quiet(agentctl: Agentctl, served: Served) -> None:
    served.happen("started", "before", "api")
    with agentctl.start("events", "-f") as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().endswith("before\n")
        served.happen("exited", "later \x1b[2J", "api")
        assert process.stdout.readline().endswith("later \\x1b[2J\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""


def test_a_reader_that_has_enough_ends_it_quietly(agentctl: Agentctl, served: Served) -> None:
    served.happen("started", "one", "api")
    with agentctl.start("events", "-f") as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        served.happen("started", "two", "api")
        assert process.wait(10) == 141
        assert process.stderr.read() == ""
