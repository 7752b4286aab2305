"""``status``: the agent and its services, for people and for programs."""

from __future__ import annotations

import json
import re
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli import status
from agent.cli.text import safe
from tests.cli.harness import Agentctl
from tests.cli.served import Served

NOW = 1_700_000_100.0


def declare(served: Served) -> None:
    served.declare(
        "edge_capture",
        kind="capture",
        health="healthy",
        since=NOW,
        restarts=3,
        cpu_percent=1.25,
        rss_bytes=34 * 1024 * 1024,
        message="received 12, dropped 0",
        figures={"received": 12, "dropped": 0},
    )
    served.declare("lan_scan", kind="scan", state="waiting", ready=False, pid=None, next_run=4_000_000_000.0)
    served.declare(
        "api", state="failed", ready=False, health="unhealthy", pid=None, message="exit code 1: never retried"
    )


def test_a_pipe_gets_a_summary_and_one_plain_line_for_each_service(agentctl: Agentctl, served: Served) -> None:
    declare(served)
    done = agentctl("status")
    assert (done.returncode, done.stderr) == (0, "")
    summary, blank, heads, capture, scan, api = done.stdout.splitlines()
    assert summary.startswith("agent running: pid 4242, up ")
    assert summary.endswith(f", 21.0 MiB, containment cgroup, version 0.1.0, prefix {served.prefix}")
    assert blank == ""
    assert heads.split("  ")[0] == "NAME" and heads.endswith("NEXT  MESSAGE")
    assert re.match(r"edge_capture +running +yes +100 .* 3 +1\.2% +34\.0 MiB +- +received 12, dropped 0$", capture)
    assert re.match(r"lan_scan +waiting +- +- .* \d+d( \d+h)?$", scan)
    assert re.match(r"api +failed +- +- .* exit code 1: never retried$", api)
    assert "\x1b" not in done.stdout


def test_json_is_the_answer_of_the_agent(agentctl: Agentctl, served: Served) -> None:
    declare(served)
    answer = json.loads(agentctl("status", "--json").stdout)
    assert answer.keys() == {"agent", "services"}
    assert {"pid", "version", "since", "state", "prefix", "containment"} <= answer["agent"].keys()
    assert [service["name"] for service in answer["services"]] == ["edge_capture", "lan_scan", "api"]
    assert {
        "name", "kind", "state", "ready", "health", "pid", "since", "restarts", "last_exit", "heartbeat_age",
        "next_run", "cpu_percent", "rss_bytes", "message",
    } <= answer["services"][0].keys()  # fmt: skip


def test_one_service_is_shown_in_full(agentctl: Agentctl, served: Served) -> None:
    declare(served)
    done = agentctl("status", "edge_capture")
    shown = dict(line.strip().split(": ", 1) for line in done.stdout.splitlines())
    assert shown["Kind"] == "capture"
    assert shown["Since"].startswith("2023-11-14 22:15:00 (") and shown["Since"].endswith(" ago)")
    assert shown["Memory"] == "34.0 MiB"
    assert (shown["received"], shown["dropped"]) == ("12", "0")
    assert shown["Last exit"] == "-"
    assert json.loads(agentctl("status", "edge_capture", "--json").stdout)["name"] == "edge_capture"


def test_a_service_that_is_not_declared_is_a_mistake_of_the_user(agentctl: Agentctl, served: Served) -> None:
    done = agentctl("status", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("agentctl: no service is named nobody") and done.stderr.count("\n") == 1


def test_an_agent_without_services_says_so(agentctl: Agentctl, served: Served) -> None:
    assert agentctl("status").stdout.endswith("/key/env.toml, then: agentctl reload\n")


def test_what_a_person_should_look_at_stands_below_the_summary(agentctl: Agentctl, served: Served) -> None:
    served.report.state = "degraded"
    served.report.message = "1 failed"
    served.report.storage = "degraded: disk full"
    lines = agentctl("status").stdout.splitlines()
    assert lines[0].startswith("agent degraded")
    assert lines[1:3] == ["  1 failed", "  storage: degraded: disk full"]


def test_a_terminal_gets_a_table_with_colours_that_fits(agentctl: Agentctl, served: Served) -> None:
    declare(served)
    shown = agentctl.on_terminal("status", columns=100)
    assert re.search(r"\x1b\[[0-9;]*31mfailed", shown)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()[2:]
    assert max(map(len, lines)) <= 100
    assert any(re.match(r" ?edge_capture +running +yes", line) for line in lines)


def test_a_terminal_with_no_color_gets_none(agentctl: Agentctl, served: Served) -> None:
    declare(served)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", agentctl.on_terminal("status", NO_COLOR="1"))


def test_a_hostile_service_cannot_act_on_the_terminal(agentctl: Agentctl, served: Served) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e[red]"
    served.declare("api", message=evil, last_exit=evil, figures={evil: evil})
    served.report.message = evil
    for shown in (agentctl.on_terminal("status"), agentctl.on_terminal("status", "api"), agentctl("status").stdout):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", re.sub(r"\x1b\[[0-9;]*m|\r\n", "", shown))
        assert "\\x1b[2J" in shown


text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(text, text, st.dictionaries(text, text | st.floats() | st.none()), st.none() | st.floats(0, 1e15))
def test_no_line_holds_a_control_character(
    name: str, message: str, figures: dict[str, object], when: float | None
) -> None:
    service = {
        "name": name, "kind": name, "state": message, "ready": True, "health": message, "message": message,
        "last_exit": message, "figures": figures, "since": when, "next_run": when, "heartbeat_age": when,
    }  # fmt: skip
    agent = {
        "state": message, "prefix": name, "pid": 1, "since": 0.0, "containment": name, "version": name,
        "message": message, "storage": message,
    }  # fmt: skip
    shown = [
        *status.summary(agent, NOW),
        *(safe(cell) for cell in status.row(service, NOW)),
        *(name for name, _ in status.details(service, NOW)),
        *(safe(value) for _, value in status.details(service, NOW)),
    ]
    assert not {unicodedata.category(char) for line in shown for char in line} & {"Cc", "Cf", "Zl", "Zp"}


def test_instants_among_the_figures_are_shown_as_times(agentctl: Agentctl, served: Served) -> None:
    served.declare("edge", kind="capture", figures={"store_oldest": 1795183200.5, "index_until": None, "bytes": 3})
    shown = dict(line.strip().split(": ") for line in agentctl("status", "edge").stdout.splitlines())
    assert shown["store_oldest"] == "2026-11-20 14:00:00"
    assert (shown["index_until"], shown["bytes"]) == ("-", "3")
