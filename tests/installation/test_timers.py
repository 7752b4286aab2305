"""Jobs as units of systemd: every calendar and every unit is held against the real systemd-analyze."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.calendar import Calendar
from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.cron import parse_cron
from agent.declaration.model import AnyService, Capture, Command, Limits, Scan, Timer
from agent.declaration.units import parse_duration
from agent.errors import UsageError
from agent.installation import timers
from agent.installation.timers import JobUnits, calendars, differing, parse_place, place, render
from tests.declaration.calendar_reference import Expressions, local_zone, systemd_answers
from tests.installation.conftest import HOURLY, SYSTEMD, declared, job

PREFIX = Path("/srv")
BASE = 1_792_884_000  # 2026-10-25, the night in which clocks are set back


def rendered(service: AnyService) -> JobUnits:
    return render(declared(service), PREFIX)[service.name]


def settings_of(text: str) -> dict[str, list[str]]:
    """The settings of a unit's text, as systemd takes them: an empty one takes back those before it."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name] = [*found.get(name, []), value] if value else []
    return found


# -- calendars ------------------------------------------------------------------------------------------------------

ZONES = ("UTC", "Europe/Helsinki", "America/New_York", "Australia/Lord_Howe")


def understood(expressions: list[str]) -> list[Calendar]:
    """Those that are calendars, parsed."""
    found = []
    for expression in expressions:
        try:
            found.append(parse_calendar(expression))
        except UsageError:
            continue
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_what_is_written_into_a_timer_is_what_systemd_would_make_of_it(zone: str) -> None:
    with local_zone(zone):
        events = understood(list(itertools.islice(Expressions(ZONES.index(zone)), 200)))
        written = [text for event in events for text in calendars(event)]
        assert len(written) == len(events) > 100
        answers = systemd_answers(zone, BASE, written, 1)
    for text, answer in zip(written, answers, strict=True):
        assert answer is not None, f"systemd refuses {text}"
        assert answer.gave_up or answer.normalized == text


class CronFields:
    """A seeded source of cron's five fields, in all forms that they have."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[tuple[str, str, str, str, str]]:
        while True:
            yield (
                self._field(0, 59),
                self._field(0, 23),
                self._field(1, 31),
                self._field(1, 12, ("jan", "feb", "mar", "oct", "dec")),
                self._field(0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "mon-fri", "sat,sun", "1-sun")),
            )

    def _field(self, low: int, high: int, words: tuple[str, ...] = ()) -> str:
        first, last = sorted((self._random.randint(low, high), self._random.randint(low, high)))
        step = self._random.randint(1, max(1, (high - low) // 2))
        forms = ["*", "*", f"*/{step}", str(first), f"{first}-{last}", f"{first}-{last}/{step}", f"{last},{first}"]
        forms += [self._random.choice(words)] if words else []
        return self._random.choice(forms)


@pytest.mark.parametrize("zone", ZONES)
def test_fields_of_cron_make_lines_that_together_elapse_when_the_agent_would(zone: str) -> None:
    fields = list(itertools.islice(CronFields(zone), 120))
    assert any(len(calendars(parse_cron(*five))) == 2 for five in fields), "day or weekday: two lines"
    with local_zone(zone):
        ours = {five: parse_cron(*five) for five in fields}
        lines = {five: calendars(calendar) for five, calendar in ours.items()}
        texts = sorted({text for written in lines.values() for text in written})
        answers = dict(zip(texts, systemd_answers(zone, BASE, texts, 4), strict=True))
        for five, written in lines.items():
            elapses: set[int] = set()
            for text in written:
                answer = answers[text]
                assert answer is not None and answer.normalized == text, five
                elapses.update(answer.elapses)
            moment: float | None = BASE
            for theirs in sorted(elapses)[:4]:
                moment = ours[five].next_elapse(moment) if moment is not None else None
                assert moment == theirs, five


def test_several_calendars_are_several_lines_and_the_zone_stays() -> None:
    first, second = parse_calendar("Mon..Fri 02:30 Europe/Helsinki"), parse_calendar("daily UTC")
    union = Calendar(
        **{name: getattr(first, name) for name in first.__struct_fields__ if name != "also"}, also=(second,)
    )
    text = rendered(job(timer=Timer("x", calendar=union))).timer
    assert settings_of(text)["OnCalendar"] == ["Mon..Fri *-*-* 02:30:00 Europe/Helsinki", "*-*-* 00:00:00 UTC"]


# -- units ----------------------------------------------------------------------------------------------------------


def test_a_timer_says_all_that_is_declared_of_its_times() -> None:
    text = rendered(job(timer=Timer("x", calendar=HOURLY.calendar, randomized_delay=330.0, persistent=True))).timer
    assert text == (
        "# Made by `agentctl timers sync` from what is declared below /srv; changes do not last.\n"
        "[Timer]\nOnCalendar=\nOnCalendar=*-*-* *:00:00\nRandomizedDelaySec=5m30s\nPersistent=true\nAccuracySec=1us\n"
    )
    assert timers.is_persistent(text) and timers.has_calendar(text)
    assert timers.schedule(text) == "*-*-* *:00:00"


def test_a_period_is_due_at_once_and_then_from_start_to_start() -> None:
    text = rendered(job(timer=Timer("every 1h30m", every=5400.0))).timer
    said = settings_of(text)
    assert (said["OnCalendar"], said["OnBootSec"], said["OnUnitActiveSec"]) == ([], ["0"], ["1h30m"])
    assert said["Persistent"] == ["false"]
    assert not timers.is_persistent(text) and not timers.has_calendar(text)
    assert timers.schedule(text) == "every 1h30m"


@given(st.floats(1.0, 366 * 86_400), st.floats(0.0, 366 * 86_400))
@settings(max_examples=30, deadline=None)
def test_durations_mean_to_systemd_what_they_mean_here(every: float, delay: float) -> None:
    every, delay = parse_duration(every), parse_duration(delay)
    said = settings_of(rendered(job(timer=Timer("x", every=every, randomized_delay=delay))).timer)
    texts = [*said["OnUnitActiveSec"], *said["RandomizedDelaySec"]]
    done = subprocess.run(["systemd-analyze", "timespan", *texts], capture_output=True, text=True, check=True)
    assert [round(seconds * 1e6) for seconds in (every, delay)] == [
        int(value) for value in re.findall(r"^ *.s: ([0-9]+)$", done.stdout, re.MULTILINE)
    ]


def test_what_is_not_a_job_of_systemds_has_no_units() -> None:
    service = Command(name="api", command=("/bin/true",))
    assert render(declared(service, job("off", enabled=False), job("on")), PREFIX).keys() == {"on"}
    assert render(declared(job(), scheduler="agent"), PREFIX) == {}


def test_a_run_has_its_timeout_and_what_ending_takes_and_is_then_ended_by_systemd() -> None:
    bounded = Timer("x", calendar=HOURLY.calendar, timeout=600.0)
    said = settings_of(rendered(job(timer=bounded, stop_timeout=5.0)).service)
    assert (said["TimeoutStartSec"], said["TimeoutStopSec"]) == (["10m20s"], ["20s"])
    for unbounded in (job(), job(timer=bounded, restart="on-failure")):
        assert settings_of(rendered(unbounded).service)["TimeoutStartSec"] == ["infinity"]


def test_limits_are_those_of_the_unit_and_leave_room_for_run_once() -> None:
    said = settings_of(rendered(job(limits=Limits(512 * 1024**2, 1.5, 100))).service)
    assert int(said["MemoryMax"][0]) == 512 * 1024**2 + timers.OWN_MEMORY
    assert said["TasksMax"] == [str(100 + timers.OWN_TASKS)]
    assert said["CPUQuota"] == ["150.00%"]
    assert not {"MemoryMax", "TasksMax", "CPUQuota"} & settings_of(rendered(job()).service).keys()


@pytest.mark.parametrize(
    ("service", "capabilities"),
    [
        (job(), ""),
        (job(user="agent", group="agent"), ""),
        (job(user="nobody"), "CAP_CHOWN CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID"),
        (job(group="adm"), "CAP_CHOWN CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID"),
        (job(user="nobody", secrets=("token",)), "CAP_CHOWN CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID"),
        (job(capabilities=("CAP_NET_BIND_SERVICE",)), "CAP_NET_BIND_SERVICE"),
        (
            job(user="nobody", capabilities=("CAP_CHOWN", "CAP_SYS_TIME")),
            "CAP_CHOWN CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID CAP_SYS_TIME",
        ),
        (Scan(name="job", targets=("10.0.0.1",), timer=HOURLY), "CAP_NET_RAW"),
        (Capture(name="job", interfaces=("lo",), timer=HOURLY), "CAP_NET_RAW"),
    ],
    ids=["command", "own user", "user", "group", "secrets", "granted", "granted as another", "scan", "capture"],
)
def test_a_job_has_the_capabilities_that_it_takes_and_no_other(service: AnyService, capabilities: str) -> None:
    said = settings_of(rendered(service).service)
    wanted = [capabilities] if capabilities else []
    assert said["CapabilityBoundingSet"] == said["AmbientCapabilities"] == wanted
    assert ("SystemCallFilter" in said) == ("CAP_SETUID" in capabilities)


def test_every_file_says_whose_it_is_and_lies_where_only_its_job_can_have_it() -> None:
    units = rendered(job("lan_scan"))
    for suffix, text in zip(("timer", "service"), units, strict=True):
        path = place("lan_scan", suffix)  # type: ignore[arg-type]  # of the two that there are
        assert path == f"agent-job@lan_scan.{suffix}.d/10-declaration.conf"
        assert parse_place(path.partition("/")[0]) == ("lan_scan", suffix)
        assert text.startswith(f"{timers.mark(PREFIX)}\n")
    assert timers.mark(PREFIX) != timers.mark(Path("/opt/agent"))
    assert "\n" not in timers.mark(Path("/o\nt\x1b"))


@pytest.mark.parametrize(
    "name",
    [
        *("agent-job@.timer.d", "agent-job@a-b.timer.d", "agent-job@A.timer.d", "agent-job@a.timer", "agent.service.d"),
        *("agent-job@a.socket.d", "agent-job@../a.timer.d", "agent-job@a.timer.d\n", f"agent-job@{'a' * 64}.timer.d"),
    ],
)
def test_no_other_directory_is_taken_for_a_jobs(name: str) -> None:
    assert parse_place(name) is None


def test_what_differs_is_what_is_new_changed_incomplete_or_to_go() -> None:
    one, two = JobUnits("a", "b"), JobUnits("a", "c")
    assert differing(
        {"same": one, "new": one, "half": one, "other": one}, {"same": one, "half": None, "other": two}
    ) == [
        "half",
        "new",
        "other",
    ]
    assert differing({}, {"gone": one, "rest": None}) == ["gone", "rest"]


# -- held against systemd-analyze verify ----------------------------------------------------------------------------


def all_kinds() -> Iterator[AnyService]:
    """Jobs of every kind, with every way to say when and all that a unit is made of."""
    when = [
        HOURLY,
        Timer("x", calendar=parse_cron("*/5", "1-3", "1,15", "*", "mon-fri"), timeout=0.1, persistent=True),
        Timer("x", every=5400.5, randomized_delay=0.25, timeout=366 * 86_400.0),
        Timer("x", every=1.0, randomized_delay=366 * 86_400.0),
    ]
    limits = [Limits(), Limits(1024**2), Limits(None, 0.01), Limits(2**60, 4096.0, 4_194_304), Limits(None, 1.2345, 1)]
    users = [(None, None), ("nobody", None), (None, "adm"), ("root", "65534")]
    for number, (timer, limit, (user, group)) in enumerate(itertools.product(when, limits, users)):
        name = f"job{number}"
        shared: dict[str, Any] = {
            "timer": timer,
            "limits": limit,
            "user": user,
            "group": group,
            "stop_timeout": 0.1 + number,
        }
        if number % 3 == 0:
            yield job(name, **shared, restart="on-failure", secrets=("token",))
        elif number % 3 == 1:
            yield Scan(name=name, targets=("10.0.0.1",), **shared)
        else:
            yield Capture(name=name, interfaces=("lo",), **shared)


def laid(directory: Path, units: dict[str, JobUnits]) -> list[str]:
    """Write templates and drop-ins as an installation has them; the program stands for itself. Returns the units."""
    for template in SYSTEMD.glob("agent-job@.*"):
        text = template.read_text().replace("/srv/lib/agent/current/agentctl", "/bin/true")
        (directory / template.name).write_text(text)
    shutil.copy(SYSTEMD / "agent.slice", directory)
    for name, texts in units.items():
        for suffix, text in zip(("timer", "service"), texts, strict=True):
            path = directory / place(name, suffix)  # type: ignore[arg-type]  # of the two that there are
            path.parent.mkdir()
            path.write_text(text)
    return [f"agent-job@{name}.{suffix}" for name in units for suffix in ("timer", "service")]


def verify(directory: Path, names: list[str]) -> str:
    """What ``systemd-analyze verify`` has to say of them: unknown keys and the like are no error to it."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{directory}:", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


def test_systemd_has_nothing_to_say_against_any_unit(tmp_path: Path) -> None:
    units = render(declared(*all_kinds()), PREFIX)
    assert len(units) == 80
    assert verify(tmp_path, laid(tmp_path, units)) == ""


def test_systemd_would_have_something_to_say_against_a_wrong_one(tmp_path: Path) -> None:
    right = rendered(job("wrong"))
    wrong = JobUnits(right.timer.replace("*-*-* *:00:00", "fortnightly"), right.service + "Nonsense=1\n")
    found = verify(tmp_path, laid(tmp_path, {"wrong": wrong}))
    assert "fortnightly" in found and "Nonsense" in found


def test_the_sandbox_of_a_job_is_that_of_the_agent() -> None:
    """Which is put together in ``agent.service``: a job differs from it where its template says why."""
    keys = re.compile(
        "(Protect|Private|Restrict|SystemCall|Capability|Ambient|NoNew|NoExec|ReadWrite|Device|Memory|Lock|Remove|Keyring)"
    )
    agent, of_job = (
        [line for line in (SYSTEMD / name).read_text().splitlines() if keys.match(line) and "Accounting" not in line]
        for name in ("agent.service", "agent-job@.service")
    )
    assert len(agent) > 25
    assert sorted(set(agent) ^ set(of_job)) == ["ProtectControlGroups=no", "ProtectControlGroups=yes"]
