"""``logs``: what a service printed, as text that only displays."""

from __future__ import annotations

import json

from agent.cli.logs import line
from agent.supervisor.report import TimerReport
from tests.cli.harness import Agentctl
from tests.cli.served import Served

STAMP = "2023-11-14T22:13:20.000Z"


def test_the_last_lines_are_shown_with_their_times(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    served.log("api", b"one\ntwo\nthree\n")
    done = agentctl("logs", "api", "-n", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{STAMP} two\n{STAMP} three\n"


def test_control_characters_never_reach_the_terminal(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    served.log("api", b"\x1b[2J\x1b]52;c;aGk=\x07 \x9b31m \xff\ttab\rover\n")
    for shown in (agentctl("logs", "api").stdout, agentctl.on_terminal("logs", "api").replace("\r\n", "\n")):
        assert shown.count("\n") == 1
        assert shown.rstrip("\n").isprintable()
        assert "\\x1b[2J" in shown and "\\x0dover" in shown


def test_json_is_one_object_a_line_with_the_text_as_it_was(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    served.log("api", b"\x1b[1mbold\n")
    (record,) = [json.loads(line) for line in agentctl("logs", "api", "--json").stdout.splitlines()]
    assert record.keys() == {"cursor", "time", "line"}
    assert (record["time"], record["line"]) == (STAMP, "\x1b[1mbold")


def test_following_shows_what_is_printed_later(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    served.log("api", b"before\n")
    with agentctl.start("logs", "-f", "-n", "1", "api") as process:
        assert process.stdout
        assert process.stdout.readline() == f"{STAMP} before\n"
        served.log("api", b"later\n")
        assert process.stdout.readline() == f"{STAMP} later\n"
        process.terminate()


def test_a_service_without_a_log_has_printed_nothing(agentctl: Agentctl, served: Served) -> None:
    served.declare("api")
    done = agentctl("logs", "api")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_where_to_find_what_a_job_of_systemds_printed_is_told(agentctl: Agentctl, served: Served) -> None:
    for name in ("report", "own"):
        served.declare(name)
        served.log(name, b"by hand\n")
    served.jobs.append(TimerReport(name="report", schedule="daily", next_run=None, scheduler="systemd"))
    served.jobs.append(TimerReport(name="own", schedule="daily", next_run=None))
    done = agentctl("logs", "report")
    assert done.stdout == f"{STAMP} by hand\n"
    assert done.stderr == "what report printed when systemd started it is in the journal: journalctl -t report\n"
    assert agentctl("logs", "own").stderr == ""


def test_a_service_that_is_not_declared_is_a_mistake_of_the_user(agentctl: Agentctl, served: Served) -> None:
    assert agentctl("logs", "nobody").returncode == 1


def test_a_piece_of_a_long_line_has_no_time_of_its_own() -> None:
    assert line({"time": "", "line": "rest", "cursor": "1:2:0"}) == "rest"
