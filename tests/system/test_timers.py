"""Jobs on systemd's calendar: timers that are as declared, runs that are judged, and nothing that runs twice."""

from __future__ import annotations

import itertools
import json
import re
import signal
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.harness import wait_until
from tests.system.host import Host

SYSTEMDS = '[agent]\nscheduler = "systemd"\n'

NOTE = "date +%s.%N >> $$SERVICE_DATA/runs"
"""What most jobs here do: note when they ran."""


def job(name: str, when: str, script: str = NOTE, *more: str) -> str:
    """One job in a declaration, as a shell's script."""
    lines = [f"[service.{name}]", 'kind = "command"', f"command = ['/bin/sh', '-c', '''{script}''']", when, *more]
    return "\n".join(lines) + "\n"


def sync(host: Host, declaration: str) -> dict[str, Any]:
    """Declare that, and make it so; the report without what is always the same."""
    host.declare(declaration)
    report: dict[str, Any] = json.loads(host.agentctl("timers", "sync", "--json").stdout)
    assert report.pop("problems") == []
    return report


def timers(host: Host, **options: Any) -> dict[str, dict[str, Any]]:
    """``agentctl timers --json`` by name."""
    answer = json.loads(host.agentctl("timers", "--json", **options).stdout)
    return {timer["name"]: timer for timer in answer["timers"]}


def runs(host: Host, name: str) -> list[float]:
    """When a job ran, as it noted it."""
    notes = host.path(f"{host.prefix}/spool/{name}/runs")
    return [float(line) for line in notes.read_text().split()] if notes.exists() else []


def wait_runs(host: Host, name: str, count: int) -> list[float]:
    wait_until(
        lambda: len(runs(host, name)) >= count,
        lambda: f"{name} has run {len(runs(host, name))} times\n{host.journal('-u', f'agent-job@{name}*')}",
    )
    return runs(host, name)


def wait_for(host: Host, name: str, **wanted: Any) -> dict[str, Any]:
    """Wait until ``agentctl timers`` says this of a job."""
    found: dict[str, Any] = {}

    def matches() -> bool:
        found.update(timers(host)[name])
        return {key: found[key] for key in wanted} == wanted

    wait_until(matches, lambda: f"{name} is {found} and not {wanted}\n{host.journal('-u', f'agent-job@{name}*')}")
    return found


# -- times ----------------------------------------------------------------------------------------------------------


def test_a_calendar_time_starts_a_job_at_that_second(installed: Host) -> None:
    assert sync(installed, SYSTEMDS + job("often", 'oncalendar = "*:*:0/2"'))["started"] == ["often"]
    begun = wait_runs(installed, "often", 3)
    # Python and all else that has to start before the job takes a moment; a minute's accuracy would show.
    assert all(at % 2 < 1.5 for at in begun)
    assert len({int(at) // 2 for at in begun}) == len(begun)
    found = wait_for(installed, "often", state="waiting", last_exit="exited 0")
    assert found["scheduler"] == "systemd" and found["schedule"] == "*:*:0/2"
    assert found["next_run"] % 2 == 0 and abs(found["next_run"] - time.time()) < 5
    assert abs(found["last_run"] - time.time()) < 5


def test_a_period_begins_at_once_and_counts_from_start_to_start(installed: Host) -> None:
    sync(installed, SYSTEMDS + job("tick", 'every = "3s"', f"{NOTE}; sleep 2") + job("hourly", 'every = "1h"'))
    wait_runs(installed, "tick", 3)
    told = installed.entries("UNIT=agent-job@tick.service", "_PID=1")
    begun = [int(one["__REALTIME_TIMESTAMP"]) / 1e6 for one in told if one["MESSAGE"].startswith("Starting ")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert all(2.8 < gap < 4.5 for gap in gaps), gaps
    found = wait_for(installed, "hourly", state="waiting", last_exit="exited 0")
    assert 3580 < found["next_run"] - time.time() <= 3600
    assert found["next_run"] == pytest.approx(runs(installed, "hourly")[0] + 3600, abs=2)


def test_a_random_delay_puts_a_time_off(installed: Host) -> None:
    sync(installed, SYSTEMDS + job("spread", 'oncalendar = "*:*:0/1"\nrandomized_delay = "1h"'))
    found = timers(installed)["spread"]
    assert 0 < found["next_run"] - time.time() < 3602
    delays = set()
    for _ in range(4):
        installed.run(["systemctl", "daemon-reload"])
        delays.add(round(timers(installed)["spread"]["next_run"]))
    assert len(delays) > 1, "systemd draws anew when it reads its units"


def test_a_time_that_was_missed_is_made_up_for_only_if_that_is_declared(installed: Host) -> None:
    declaration = job("kept", 'oncalendar = "daily"\npersistent = true') + job("let_go", 'oncalendar = "daily"')
    sync(installed, SYSTEMDS + declaration)
    assert runs(installed, "kept") == []
    installed.run(["systemctl", "stop", "agent-job@kept.timer", "agent-job@let_go.timer"])
    installed.run(["touch", "--date=3 days ago", "/var/lib/systemd/timers/stamp-agent-job@kept.timer"])
    # What was stopped by hand is started by the next sync, as it is declared.
    assert sync(installed, SYSTEMDS + declaration)["started"] == ["kept", "let_go"]
    assert len(wait_runs(installed, "kept", 1)) == 1
    wait_for(installed, "kept", state="waiting", last_exit="exited 0")
    assert runs(installed, "let_go") == []


def test_a_reboot_comes_back_to_the_same_timers_and_makes_up_for_what_was_missed(installed: Host) -> None:
    declaration = job("kept", 'oncalendar = "daily"\npersistent = true') + job("let_go", 'oncalendar = "daily"')
    sync(installed, SYSTEMDS + declaration)
    installed.run(["touch", "--date=3 days ago", "/var/lib/systemd/timers/stamp-agent-job@kept.timer"])
    installed.reboot()
    wait_for(installed, "kept", state="waiting", last_exit="exited 0")
    assert timers(installed)["let_go"]["state"] == "waiting"
    assert units(installed) == {"agent-job@kept.timer": "active", "agent-job@let_go.timer": "active"}
    assert (len(runs(installed, "kept")), runs(installed, "let_go")) == (1, [])
    assert sync(installed, SYSTEMDS + declaration)["unchanged"] == 2


def test_a_job_looks_alike_whoever_starts_it_at_its_times(installed: Host) -> None:
    declaration = job("often", 'oncalendar = "*:*:0/2"')
    installed.declare(declaration)
    installed.systemctl("start")
    mine = wait_for(installed, "often", scheduler="agent", state="waiting", last_exit="exited 0")
    installed.declare(SYSTEMDS + declaration)
    installed.agentctl("reload")
    handed_over = time.time()
    installed.agentctl("timers", "sync")
    wait_until(lambda: timers(installed)["often"]["last_run"] >= handed_over)
    theirs = wait_for(installed, "often", scheduler="systemd", state="waiting", last_exit="exited 0")
    assert {key: type(value) for key, value in mine.items()} == {key: type(value) for key, value in theirs.items()}
    for found in (mine, theirs):
        assert found["next_run"] % 2 == 0
        assert found["last_run"] % 2 < 1.5
        assert 0 < found["next_run"] - found["last_run"] <= 2
    apart = ("scheduler", "next_run", "last_run")
    assert {**mine, **dict.fromkeys(apart)} == {**theirs, **dict.fromkeys(apart)}


# -- how a run is judged --------------------------------------------------------------------------------------------


def test_a_job_that_somebody_starts_by_hand_has_run_when_systemctl_returns(installed: Host) -> None:
    sync(installed, SYSTEMDS + job("good", 'oncalendar = "yearly"') + job("bad", 'oncalendar = "yearly"', "exit 7"))
    assert {timer["last_run"] for timer in timers(installed).values()} == {None}
    installed.run(["systemctl", "start", "agent-job@good.service"])
    assert installed.run(["systemctl", "start", "agent-job@bad.service"], check=False).returncode == 1
    (ran,) = runs(installed, "good")
    found = timers(installed)
    assert {name: timer["last_exit"] for name, timer in found.items()} == {"good": "exited 0", "bad": "exited 7"}
    assert found["good"]["last_run"] == pytest.approx(ran, abs=2)


def test_how_a_run_ended_is_seen_by_systemctl_the_journal_and_agentctl(installed: Host) -> None:
    declaration = job("fails", 'every = "1h"', "echo it says why >&2; exit 7") + job("wrong", 'every = "1h"', "exit 1")
    sync(installed, SYSTEMDS + declaration + job("good", 'every = "1h"', "echo done"))
    told = {name: wait_for(installed, name, state="waiting") for name in ("fails", "wrong", "good")}
    wait_until(lambda: all(timers(installed)[name]["last_exit"] for name in told))
    assert {name: timers(installed)[name]["last_exit"] for name in told} == {
        "fails": "exited 7",
        "wrong": "exited 1: its configuration is wrong",
        "good": "exited 0",
    }
    for name, code, result in (("fails", "2", "exit-code"), ("wrong", "1", "exit-code"), ("good", "0", "success")):
        shown = installed.show(f"agent-job@{name}.service", "Result", "ExecMainStatus", "ActiveState")
        assert shown == {
            "Result": result,
            "ExecMainStatus": code,
            "ActiveState": "inactive" if code == "0" else "failed",
        }
    status = installed.run(["systemctl", "status", "agent-job@wrong.service"], check=False).stdout
    assert 'Status: "exited 1: its configuration is wrong"' in status
    assert re.search(r"code=exited, status=1", status)
    entries = installed.entries("AGENT_SERVICE=fails")
    assert [entry["MESSAGE"] for entry in entries] == ["it says why", "agentctl: fails: exited 7"]
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"fails"}
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {"agent-job@fails.service"}


def test_a_job_over_its_timeout_is_ended_with_all_that_it_started(installed: Host) -> None:
    slow = job("slow", 'every = "1h"', "(setsid sleep 4321 &); sleep 5432", 'timeout = "1s"', 'stop_timeout = "1s"')
    sync(installed, SYSTEMDS + slow)
    found = wait_for(
        installed, "slow", state="waiting", last_exit="exited 2: ran longer than its timeout of 1 s; killed by SIGTERM"
    )
    assert found["last_run"]
    assert not [words for words in installed.processes().values() if "sleep" in words]


def test_one_whose_keeper_hangs_is_ended_by_systemd(installed: Host) -> None:
    sync(installed, SYSTEMDS + job("slow", 'every = "1h"', "sleep 5432", 'timeout = "1h"'))
    wait_until(lambda: any("5432" in words for words in installed.processes().values()))
    # The job's own timeout, then its stop_timeout, then what run-once is given to say so.
    assert installed.show("agent-job@slow.service", "TimeoutStartUSec") == {"TimeoutStartUSec": "1h 25s"}
    installed.run(["systemctl", "stop", "agent-job@slow.service"], check=False)
    assert not any("5432" in words for words in installed.processes().values())
    assert timers(installed)["slow"]["last_exit"] == "exited 2: interrupted by SIGTERM"
    installed.drop_in("override", "[Service]\nTimeoutStartSec=1s\nTimeoutStopSec=1s\n", "agent-job@slow.service")
    installed.run(["systemctl", "start", "--no-block", "agent-job@slow.service"])
    wait_until(lambda: any("5432" in words for words in installed.processes().values()))
    installed.signal(int(installed.show("agent-job@slow.service", "MainPID")["MainPID"]), signal.SIGSTOP)
    wait_for(installed, "slow", last_exit="ended by systemd: it took longer than its unit allows")
    assert not any("5432" in words for words in installed.processes().values())


def test_a_job_that_fails_is_tried_again_if_that_is_declared(installed: Host) -> None:
    third = f"{NOTE}; [ $$(wc -l < $$SERVICE_DATA/runs) -ge 3 ] || exit 2"
    declaration = job("third", 'every = "1h"', third, 'restart = "on-failure"') + job("once", 'every = "1h"', third)
    sync(installed, SYSTEMDS + declaration)
    wait_for(installed, "third", state="waiting", last_exit="exited 0")
    wait_for(installed, "once", state="waiting", last_exit="exited 2")
    assert (len(runs(installed, "third")), len(runs(installed, "once"))) == (3, 1)


def test_a_scan_and_a_command_of_another_user_have_what_they_take_and_no_more(installed: Host) -> None:
    installed.write("/srv/key/secrets/token", "sesame\n", 0o600)
    installed.run(["chown", "agent:agent", "/srv/key/secrets/token"])
    inside = "id -un; cat $$TOKEN_FILE 2>/dev/null; touch $$SERVICE_DATA/mine && touch /etc/mine; true"
    declaration = (
        job("own", 'every = "1h"', inside)
        + job("theirs", 'every = "1h"', inside, 'user = "nobody"', 'secrets = ["token"]')
        + '[service.lan]\nkind = "scan"\ntargets = ["127.0.0.1"]\nports = "1-20"\nevery = "1h"\n'
    )
    sync(installed, SYSTEMDS + declaration)
    for name in ("own", "theirs", "lan"):
        wait_for(installed, name, state="waiting", last_exit="exited 0")
    said = {name: installed.journal("-t", name, "--output=cat").splitlines() for name in ("own", "theirs")}
    assert said["own"] == ["agent", "touch: cannot touch '/etc/mine': Read-only file system"]
    assert said["theirs"] == ["nobody", "sesame", "touch: cannot touch '/etc/mine': Read-only file system"]
    assert list(installed.path("/srv/spool/lan").iterdir())
    limits = {
        name: installed.show(f"agent-job@{name}.service", "CapabilityBoundingSet", "AmbientCapabilities")
        for name in ("own", "theirs", "lan")
    }
    assert limits["own"] == {"CapabilityBoundingSet": "", "AmbientCapabilities": ""}
    assert limits["lan"] == {"CapabilityBoundingSet": "cap_net_raw", "AmbientCapabilities": "cap_net_raw"}
    assert "cap_net_raw" not in limits["theirs"]["AmbientCapabilities"]


def test_limits_of_a_job_are_those_of_its_unit(installed: Host) -> None:
    limited = 'limits = { memory = "64M", cpus = 0.5, pids = 20 }'
    sync(installed, SYSTEMDS + job("bounded", 'oncalendar = "yearly"', NOTE, limited))
    shown = installed.show("agent-job@bounded.service", "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax", "OOMPolicy")
    assert shown == {
        "MemoryMax": str((64 + 32) * 1024**2),
        "CPUQuotaPerSecUSec": "500ms",
        "TasksMax": "22",
        "OOMPolicy": "stop",
    }


# -- never twice ----------------------------------------------------------------------------------------------------


def test_a_job_never_overlaps_itself_whoever_starts_it(installed: Host) -> None:
    installed.declare(SYSTEMDS + job("long", 'oncalendar = "yearly"', f"{NOTE}; sleep 6543"))
    installed.agentctl("timers", "sync")
    installed.systemctl("start")
    report = installed.service("long")
    assert (report["state"], report["message"]) == ("waiting", "waits for systemd: agentctl timers")
    # The agent runs it, because somebody asked: systemd does not.
    assert "started" in installed.agentctl("start", "long").stdout
    refused = installed.run(["systemctl", "start", "agent-job@long.service"], check=False)
    assert refused.returncode == 1
    found = timers(installed)["long"]
    assert found["state"] == "running"
    told = installed.journal("_SYSTEMD_UNIT=agent-job@long.service", "--output=cat")
    assert re.fullmatch(r"agentctl: long runs already, under process \d+\n", told)
    assert len(runs(installed, "long")) == 1
    assert "systemd goes on starting it" in installed.agentctl("stop", "long").stdout
    installed.agentctl("start", "long")
    installed.agentctl("stop", "long")
    # systemd runs it: the agent does not.
    before = len(runs(installed, "long"))
    installed.run(["systemctl", "start", "--no-block", "agent-job@long.service"])
    wait_runs(installed, "long", before + 1)
    refused = installed.agentctl("start", "long", check=False)
    assert refused.returncode == 2
    assert re.search(r"not started: it runs already, under process \d+", refused.stderr)
    assert len(runs(installed, "long")) == before + 1
    for user in ("root", "nobody"):  # whom the agent refuses asks systemd
        assert timers(installed, user=user)["long"]["state"] == "running"


def test_the_agent_starts_no_job_of_systemds_and_all_of_its_own(installed: Host) -> None:
    installed.declare(SYSTEMDS + job("mine", 'every = "1s"'))
    installed.systemctl("start")
    installed.until("mine", state="waiting")
    assert "timers are not as declared: mine" in installed.agentctl("timers").stdout
    installed.declare(job("mine", 'every = "1s"'))
    installed.agentctl("reload")
    wait_runs(installed, "mine", 2)
    installed.declare(SYSTEMDS + job("mine", 'every = "1s"'))
    told = installed.agentctl("reload").stdout
    assert told == "1 service unchanged\ntimers are not as declared: mine; run `agentctl timers sync`\n"
    installed.until("mine", state="waiting", next_run=None)
    count = len(runs(installed, "mine"))
    installed.agentctl("timers", "sync")
    wait_runs(installed, "mine", count + 2)
    assert installed.agentctl("reload").stdout == "1 service unchanged\n"


# -- sync -----------------------------------------------------------------------------------------------------------


def units(host: Host) -> Mapping[str, str]:
    """The state of every timer of a job that systemd has in memory."""
    listed = host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "agent-job@*.timer"]).stdout
    return {line.split()[0]: line.split()[2] for line in listed.splitlines()}


def laid(host: Host) -> list[str]:
    """What lies there of jobs, templates left out."""
    found = host.run(["find", "/etc/systemd/system", "-name", "agent-job@*", "-not", "-name", "agent-job@.*"]).stdout
    return sorted(found.split())


def test_what_is_no_longer_declared_is_stopped_and_removed_and_nothing_else(installed: Host) -> None:
    """And a run that is under way goes on through all of it."""
    installed.write("/etc/systemd/system/agent-job@theirs.timer.d/override.conf", "[Timer]\nOnCalendar=weekly\n")
    installed.write("/etc/systemd/system/agent-job@a.timer.d/override.conf", "[Timer]\nAccuracySec=1s\n")
    installed.run(["systemctl", "enable", "--now", "agent-job@theirs.timer"])
    others = laid(installed)
    long = job("a", 'every = "1h"', f"{NOTE}; sleep 7654") + job("b", 'oncalendar = "daily"\npersistent = true')
    sync(installed, SYSTEMDS + long + job("fails", 'every = "1h"', "exit 2"))
    wait_runs(installed, "a", 1)
    wait_for(installed, "fails", last_exit="exited 2")
    worker = installed.show("agent-job@a.service", "MainPID")
    assert installed.path("/var/lib/systemd/timers/stamp-agent-job@b.timer").exists()
    assert sync(installed, SYSTEMDS + long)["removed"] == ["fails"]
    assert sync(installed, SYSTEMDS + long.replace('"1h"', '"2h"').replace("daily", "weekly"))["changed"] == ["a", "b"]
    assert installed.show("agent-job@a.timer", "TimersMonotonic")["TimersMonotonic"]
    assert sync(installed, long)["removed"] == ["a", "b"]
    assert installed.show("agent-job@a.service", "MainPID") == worker
    assert len(runs(installed, "a")) == 1
    assert laid(installed) == others
    assert units(installed) == {"agent-job@theirs.timer": "active"}
    assert not installed.path("/var/lib/systemd/timers/stamp-agent-job@b.timer").exists()
    assert installed.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    assert sync(installed, long) == {
        "scheduler": "agent", "dry_run": False, "started": [], "changed": [], "removed": [], "unchanged": 0
    }  # fmt: skip


def test_times_that_change_and_units_that_are_read_anew_start_nothing(installed: Host) -> None:
    """systemd alone would: it counts new times from when the timer elapsed last, and OnActiveSec= from a reload."""
    sync(installed, SYSTEMDS + job("a", 'oncalendar = "*:*:0/1"') + job("b", 'every = "1h"'))
    wait_runs(installed, "a", 1)
    wait_for(installed, "b", state="waiting", last_exit="exited 0")
    sync(installed, SYSTEMDS + job("a", 'oncalendar = "yearly"') + job("b", 'every = "2h"'))
    wait_for(installed, "a", state="waiting", last_exit="exited 0")
    count = len(runs(installed, "a"))
    sync(installed, SYSTEMDS + job("a", 'oncalendar = "2020-01-01"') + job("b", 'every = "3h"'))
    sync(installed, SYSTEMDS + job("a", 'oncalendar = "monthly"') + job("b", 'every = "4h"'))
    installed.run(["systemctl", "daemon-reload"])
    installed.run(["systemctl", "daemon-reexec"])
    assert timers(installed)["b"]["next_run"] == pytest.approx(runs(installed, "b")[0] + 4 * 3600, abs=2)
    assert timers(installed)["a"]["next_run"] > time.time() + 60
    assert (len(runs(installed, "a")), len(runs(installed, "b"))) == (count, 1)


# Stands before the real one in PATH. It kills who calls it at one call, before or after that is done: /run/kill says.
DEADLY = """#!/bin/sh
count=$(($(cat /run/calls 2>/dev/null) + 1))
echo $count >/run/calls
[ "before $count" != "$(cat /run/kill)" ] || kill -9 $PPID
/usr/bin/systemctl "$@"
code=$?
[ "after $count" != "$(cat /run/kill)" ] || kill -9 $PPID
exit $code
"""


def test_a_sync_that_is_killed_at_any_call_is_completed_by_the_next(installed: Host) -> None:
    installed.write("/opt/deadly/systemctl", DEADLY, 0o755)
    first = SYSTEMDS + job("a", 'oncalendar = "daily"\npersistent = true') + job("b", 'oncalendar = "weekly"')
    second = SYSTEMDS + job("b", 'oncalendar = "monthly"') + job("c", 'oncalendar = "yearly"')
    killed = 0
    for call, moment in itertools.product(range(1, 10), ("before", "after")):
        sync(installed, first)
        installed.declare(second)
        installed.run(["rm", "-f", "/run/calls"])
        installed.write("/run/kill", f"{moment} {call}")
        done = installed.agentctl("timers", "sync", check=False, environment={"PATH": "/opt/deadly:/usr/bin:/bin"})
        if not done.returncode:
            break  # it makes no more calls than that
        killed += 1
        sync(installed, second)
        assert units(installed) == {"agent-job@b.timer": "active", "agent-job@c.timer": "active"}
        assert sync(installed, second)["unchanged"] == 2
    assert killed >= 10
    assert [runs(installed, name) for name in "abc"] == [[], [], []]
    assert not installed.path("/var/lib/systemd/timers/stamp-agent-job@a.timer").exists()


def test_who_is_not_root_and_without_an_agent_sees_the_timers_and_changes_none(installed: Host) -> None:
    sync(installed, SYSTEMDS + job("a", 'oncalendar = "Mon..Fri 02:30"') + job("b", 'every = "1h"'))
    wait_for(installed, "b", state="waiting", last_exit="exited 0")
    done = installed.agentctl("timers", user="nobody")
    why = "may not be read by user nobody, who may not enter /srv/key: do it as root (sudo)"
    assert f"{why}; shown are the timers of the last" in done.stderr
    assert done.stderr.count("\n") == 1
    _, first, second = done.stdout.splitlines()
    assert re.match(r"a +systemd +waiting +\d{4}-\S+ 02:30:00 +\S.* - +- +Mon\.\.Fri \*-\*-\* 02:30:00$", first)
    assert re.match(r"b +systemd +waiting +\d{4}-\S+ \S+ +59m.* exited 0 +every 1h$", second)
    dry = installed.agentctl("timers", "sync", "--dry-run", user="agent")
    assert dry.stdout == "2 timers as declared\n"
    installed.declare(SYSTEMDS)
    refused = installed.agentctl("timers", "sync", user="agent", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("agentctl: only root may change the units in /etc/systemd/system; ")


def test_a_timer_that_systemd_will_not_start_is_told(installed: Host) -> None:
    installed.run(["systemctl", "mask", "agent-job@a.timer"])
    installed.declare(SYSTEMDS + job("a", 'oncalendar = "daily"') + job("b", 'oncalendar = "daily"'))
    done = installed.agentctl("timers", "sync", check=False)
    assert done.returncode == 2
    assert (
        done.stderr
        == "agentctl: systemctl start: Failed to start agent-job@a.timer: Unit agent-job@a.timer is masked.\n"
    )
    assert units(installed)["agent-job@b.timer"] == "active"


def test_systemd_finds_nothing_wrong_with_what_is_installed(installed: Host) -> None:
    sync(installed, SYSTEMDS + job("a", 'oncalendar = "daily"', NOTE, 'user = "nobody"', "limits = { pids = 9 }"))
    named = ["agent-job@a.timer", "agent-job@a.service", "agent-job@other.timer"]
    done = installed.run(["systemd-analyze", "verify", "--man=no", *named])
    assert done.stdout + done.stderr == ""
    scores = {
        name: float(installed.run(["systemd-analyze", "security", f"agent-job@{name}.service"]).stdout.split()[-3])
        for name in ("a", "other")
    }
    assert scores["other"] <= 2.0


def test_an_uninstalled_agent_leaves_no_timer(installed: Host) -> None:
    installed.write("/etc/systemd/system/agent-job@a.timer.d/override.conf", "[Timer]\nAccuracySec=1s\n")
    sync(installed, SYSTEMDS + job("a", 'oncalendar = "daily"\npersistent = true') + job("b", 'every = "1h"'))
    drop_ins = [f" /etc/systemd/system/agent-job@{name}.timer.d/" for name in "ab"]
    would = installed.agentctl("uninstall", "--dry-run").stdout
    assert all(drop_in in would for drop_in in drop_ins)
    assert units(installed) == {"agent-job@a.timer": "active", "agent-job@b.timer": "active"}
    did = installed.agentctl("uninstall").stdout
    assert all(drop_in in did for drop_in in drop_ins)
    assert units(installed) == {}
    assert laid(installed) == [
        "/etc/systemd/system/agent-job@a.timer.d",  # an operator's, with what is in it
    ]
    assert not list(installed.path("/var/lib/systemd/timers").glob("*agent-job*"))
