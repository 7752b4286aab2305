"""Defaults of each kind, timer mode, and rules across keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.cron import parse_cron
from agent.declaration.model import (
    AnyService,
    Capture,
    Command,
    Declaration,
    Heartbeat,
    Limits,
    LogPolicy,
    Reserve,
    Rotate,
    Scan,
    Timer,
)
from agent.errors import DeclarationError

Read = Callable[..., Declaration]

MINIMAL = {
    "capture": 'kind = "capture"\ninterfaces = ["eth0"]\n',
    "scan": 'kind = "scan"\ntargets = ["10.0.0.1"]\n',
    "command": 'kind = "command"\ncommand = ["/bin/true"]\n',
}


def service(read: Read, kind: str, keys: str = "") -> AnyService:
    return read(f"[service.x]\n{MINIMAL[kind]}{keys}").services["x"]


def complaints(read: Read, kind: str, keys: str) -> list[str]:
    """What is wrong, as ``line key: text``; the lines of ``keys`` count from 1."""
    with pytest.raises(DeclarationError) as error:
        service(read, kind, keys)
    return [f"{problem.line - 3} {problem.where}: {problem.text}" for problem in error.value.problems]


def test_a_capture_needs_its_interfaces_only(read: Read) -> None:
    assert service(read, "capture") == Capture(
        name="x", interfaces=("eth0",), restart="always", ready="notify", heartbeat=Heartbeat(10, 30)
    )


def test_a_scan_runs_once_unless_told_otherwise(read: Read) -> None:
    assert service(read, "scan") == Scan(
        name="x", targets=("10.0.0.1",), site="host", restart="no", ready="notify", heartbeat=Heartbeat(10, 30)
    )
    assert service(read, "scan", 'restart = "always"').restart == "always"


def test_a_command_is_kept_running_and_promises_no_heartbeat(read: Read) -> None:
    assert service(read, "command") == Command(
        name="x", command=("/bin/true",), restart="always", ready="immediate", heartbeat=None
    )


def test_every_key_of_a_service_arrives_in_the_model(read: Read) -> None:
    keys = """
    enabled = false
    restart = "on-failure"
    max_restarts = 3
    restart_window = "1m"
    stop_signal = "INT"
    stop_timeout = 2.5
    start_timeout = "3s"
    user = "www-data"
    group = "adm"
    working_directory = "/tmp"
    environment = { A = "x", B = 5, C = true }
    log = { size = "1M", keep = 2 }
    heartbeat = { interval = "5s", timeout = "20s" }
    ready = "heartbeat"
    limits = { memory = "512M", cpus = 1.5, pids = 100 }
    secrets = ["token"]
    every = "1h"
    timeout = 60
    randomized_delay = "5m"
    """
    assert service(read, "command", keys) == Command(
        name="x",
        command=("/bin/true",),
        enabled=False,
        restart="on-failure",
        max_restarts=3,
        restart_window=60.0,
        stop_signal=2,
        stop_timeout=2.5,
        start_timeout=3.0,
        user="www-data",
        group="adm",
        working_directory="/tmp",
        environment={"A": "x", "B": "5", "C": "true"},
        log=LogPolicy(1024**2, 2),
        heartbeat=Heartbeat(5, 20),
        ready="heartbeat",
        limits=Limits(512 * 1024**2, 1.5, 100),
        secrets=("token",),
        timer=Timer("every 1h", every=3600.0, timeout=60.0, randomized_delay=300.0),
    )


def test_the_keys_of_a_capture_arrive_in_the_model(read: Read) -> None:
    keys = """
    filter = "not port 22"
    budget = "20GiB"
    min_free = "12.5%"
    max_age = "30d"
    rotate = { size = "256MiB", every = "30s" }
    snaplen = 128
    promiscuous = true
    ring = "64MiB"
    """
    assert service(read, "capture", keys) == Capture(
        name="x",
        interfaces=("eth0",),
        filter="not port 22",
        budget=20 * 1024**3,
        min_free=Reserve(share=0.125),
        max_age=30 * 86_400.0,
        rotate=Rotate(256 * 1024**2, 30.0),
        snaplen=128,
        promiscuous=True,
        ring=64 * 1024**2,
        ready="notify",
        heartbeat=Heartbeat(10, 30),
    )


def test_the_keys_of_a_scan_arrive_in_the_model(read: Read) -> None:
    keys = """
    exclude = ["10.0.0.2"]
    allow_public = ["8.8.8.0/24"]
    ports = "443,80"
    profile = "services"
    rate = 2000
    timeout = "2h"
    """
    assert service(read, "scan", keys) == Scan(
        name="x",
        targets=("10.0.0.1",),
        exclude=("10.0.0.2",),
        allow_public=("8.8.8.0/24",),
        ports="80,443",
        profile="services",
        rate=2000,
        site="host",
        timeout=7200.0,
        restart="no",
        ready="notify",
        heartbeat=Heartbeat(10, 30),
    )


@pytest.mark.parametrize(
    ("keys", "heartbeat"),
    [
        ('heartbeat = { interval = "5s" }', Heartbeat(5, 15)),
        ('heartbeat = { timeout = "12s" }', Heartbeat(4, 12)),
        ('heartbeat = { timeout = "5m" }', Heartbeat(10, 300)),
        ("heartbeat = {}", Heartbeat(10, 30)),
        ('ready = "heartbeat"', Heartbeat(10, 30)),
    ],
)
def test_half_a_heartbeat_is_completed(read: Read, keys: str, heartbeat: Heartbeat) -> None:
    assert service(read, "command", keys).heartbeat == heartbeat


def test_a_heartbeat_may_be_missed_once(read: Read) -> None:
    assert complaints(read, "capture", 'heartbeat = { interval = "10s", timeout = "15s" }') == [
        '1 service.x.heartbeat: timeout 15s is less than two intervals of 10s; write timeout = "30s"'
    ]


def test_a_percentage_of_memory_is_taken_from_the_host(read: Read) -> None:
    assert service(read, "command", 'limits = { memory = "25%" }').limits == Limits(memory=2 * 1024**3)


def test_a_calendar_makes_a_job_that_is_not_restarted(read: Read) -> None:
    job = service(read, "command", 'oncalendar = "Mon..Fri 02:30"\ntimeout = "2h"')
    assert job.timer == Timer("Mon..Fri 02:30", calendar=parse_calendar("Mon..Fri 02:30"), timeout=7200.0)
    assert job.restart == "no"
    assert job.run_timeout == 7200.0


def test_a_list_of_calendars_elapses_whenever_one_does(read: Read) -> None:
    timer = service(read, "scan", 'oncalendar = ["daily", "Sat 12:00"]').timer
    assert timer is not None and timer.calendar is not None
    assert timer.source == "daily; Sat 12:00"
    parts = [parse_calendar("daily"), parse_calendar("Sat 12:00")]
    moment = 1_700_000_000.0
    for _ in range(10):
        expected = min(elapse for part in parts if (elapse := part.next_elapse(moment)) is not None)
        assert timer.calendar.next_elapse(moment) == expected
        moment = expected


def test_cron_fields_that_are_left_out_are_stars(read: Read) -> None:
    timer = service(read, "command", 'minute = 30\nhour = "*/2"').timer
    assert timer == Timer("cron 30 */2 * * *", calendar=parse_cron("30", "*/2", "*", "*", "*"))


def test_a_scan_may_be_bounded_without_a_calendar(read: Read) -> None:
    scan = service(read, "scan", 'timeout = "10m"')
    assert (scan.timer, scan.run_timeout) == (None, 600.0)


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        (
            "command",
            'every = "1h"\noncalendar = "daily"',
            ["2 service.x.oncalendar: oncalendar and every are different ways to say when; keep one of them"],
        ),
        (
            "command",
            'minute = 5\nhour = 1\nevery = "1h"',
            ["1 service.x.minute: minute and hour and every are different ways to say when; keep one of them"],
        ),
        (
            "command",
            'timeout = "1h"',
            [
                "1 service.x.timeout: bounds jobs and scans, and this runs on; "
                "say when it runs (oncalendar) or leave it out"
            ],
        ),
        (
            "command",
            'every = "1h"\nrestart = "always"',
            ["2 service.x.restart: always keeps a service up; a job runs at its times, write no or on-failure"],
        ),
        (
            "capture",
            'every = "1h"',
            [
                "-2 service.x.timeout: missing; a capture never ends by itself, so a job needs one, "
                'such as timeout = "10m"'
            ],
        ),
        (
            "capture",
            'budget = "100MiB"\nrotate = { size = "64MiB" }',
            [
                "1 service.x.budget: 100MiB is less than two segments of 64MiB for each interface; "
                "write at least 128MiB or a smaller rotate.size"
            ],
        ),
        (
            "scan",
            'profile = "discovery"\nports = "80"',
            ['2 service.x.ports: the profile discovery looks at no ports; leave them out or write profile = "ports"'],
        ),
        (
            "command",
            'limits = { memory = "0.001%" }',
            ["1 service.x.limits.memory: is 85899 bytes of this host's 8GiB; nothing runs in that"],
        ),
        (
            "command",
            'secrets = ["db"]\nenvironment = { DB_FILE = "x" }',
            ["1 service.x.secrets: db sets the variable DB_FILE, which environment or env_file sets too"],
        ),
        ("scan", 'exclude = ["10.0.0.0/8"]', ["1 service.x.exclude: leaves nothing to scan"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_that_contradict_each_other_are_told(read: Read, kind: str, keys: str, expected: list[str]) -> None:
    assert complaints(read, kind, keys) == expected


@pytest.mark.parametrize("kind", MINIMAL)
def test_a_kind_says_which_key_it_cannot_do_without(read: Read, kind: str) -> None:
    with pytest.raises(DeclarationError) as error:
        read(f'[service.x]\nkind = "{kind}"\n')
    wanted = MINIMAL[kind].split("\n")[1].split(" = ")[0]
    [problem] = error.value.problems
    assert (problem.line, problem.where) == (1, "service.x")
    assert problem.text.startswith(f"{wanted} is missing; write {wanted} = [")


def test_a_public_target_is_told_on_its_own_line(read: Read) -> None:
    with pytest.raises(DeclarationError) as error:
        read('[service.x]\nkind = "scan"\ntargets = [\n "10.0.0.1",\n "8.8.8.8",\n]\n')
    assert str(error.value) == (
        "/k/env.toml:5: service.x.targets: 8.8.8.8 is public; "
        "only scan what is yours, and then name it in allow_public too"
    )


def test_a_scan_is_bounded_in_addresses(read: Read) -> None:
    assert read('[service.x]\nkind = "scan"\ntargets = ["10.0.0.0/16"]').services
    with pytest.raises(DeclarationError, match="131070 addresses are too many; one scan takes at most 65536"):
        read('[service.x]\nkind = "scan"\ntargets = ["10.0.0.0/15"]')


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            'budget = "32KiB"\nrotate = { size = "16KiB" }',
            "32KiB is less than what packets of up to 262144 bytes need for each interface; "
            "write at least 513KiB or a smaller snaplen",
        ),
        (
            'budget = "100KiB"\nrotate = { size = "1GiB" }',
            "100KiB is less than two segments of 1GiB for each interface; "
            "write at least 2GiB or a smaller rotate.size and a smaller snaplen",
        ),
        (
            'budget = "1MiB"\nrotate = { size = "1MiB" }',
            "1MiB is less than two segments of 1MiB for each interface; write at least 2MiB or a smaller rotate.size",
        ),
    ],
)
def test_a_budget_holds_segments_and_packets(read: Read, keys: str, expected: str) -> None:
    assert complaints(read, "capture", keys) == [f"1 service.x.budget: {expected}"]


def test_a_small_budget_is_enough_for_small_packets(read: Read) -> None:
    keys = 'budget = "32KiB"\nrotate = { size = "16KiB" }\nsnaplen = 96'
    assert isinstance(service(read, "capture", keys), Capture)


HIDING = [
    ("command", 'hour = 25\nevery = "1h"', ["hour: cron hour '25'", "hour: hour and every are different ways"]),
    ("command", 'oncalendar = "Foo"\nevery = "1h"', ["oncalendar: calendar 'Foo'", "oncalendar: oncalendar and every"]),
    ("command", 'hour = 25\nminute = "x y"\nday = 40', ["hour:", 'minute: "x y"', "day:"]),
    ("command", 'oncalendar = ["Foo", 5]', ["oncalendar: 5 is not", "oncalendar: calendar 'Foo'"]),
    ("command", 'oncalendar = ["Foo", "daily", "daily"]', ['oncalendar: "daily" stands', "oncalendar: calendar 'Foo'"]),
    ("command", 'timeout = "soon"', ['timeout: "soon"', "timeout: bounds jobs and scans"]),
    ("command", 'limits = { memory = "0.001%", cpus = "x" }', ['limits.cpus: "x"', "limits.memory: is 85899 bytes"]),
    ("command", 'secrets = ["db", "a.b"]\nenvironment = { DB_FILE = 1 }', ['secrets: "a.b"', "secrets: db sets"]),
    ("command", 'environment = { A = 1.5, B_FILE = 1 }\nsecrets = ["b"]', ["environment.A: 1.5", "secrets: b sets"]),
    ("capture", 'hour = 25\nevery = "x"', ["timeout: missing", "hour: cron", "hour: hour and every", 'every: "x"']),
    ("capture", 'snaplen = "x"\nbudget = "1MiB"', ['snaplen: "x"', "budget: 1MiB is less than two segments"]),
    ("capture", 'rotate = { size = "4GiB", every = "x" }', ['rotate.every: "x"', None]),
    ("scan", 'profile = "discovery"\nports = "x"', ['ports: "x"', "ports: the profile discovery"]),
]  # fmt: skip
"""A kind, keys, and how each of the problems begins. ``None``: that of the default budget, which is on no line."""


@pytest.mark.parametrize(("kind", "keys", "expected"), HIDING, ids=[keys for _, keys, _ in HIDING])
def test_one_mistake_does_not_hide_another(read: Read, kind: str, keys: str, expected: list[str | None]) -> None:
    found = [complaint.split(" service.x.")[1] for complaint in complaints(read, kind, keys)]
    wanted = ["budget: 1GiB is less than" if words is None else words for words in expected]
    assert len(found) == len(wanted)
    assert all(any(complaint.startswith(words) for complaint in found) for words in wanted)


def test_a_wrong_target_does_not_hide_what_is_wrong_with_the_others(read: Read) -> None:
    with pytest.raises(DeclarationError) as error:
        read('[service.x]\nkind = "scan"\ntargets = ["10.0.0.1/24", "8.8.8.8", "224.0.0.1", "10.0.0.0/8"]\n')
    assert [problem.text for problem in error.value.problems] == [
        '"10.0.0.1/24" has host bits set; write 10.0.0.0/24',
        "16777216 addresses are too many; one scan takes at most 65536",
        "224.0.0.1 is multicast, which is never scanned; leave it out",
        "8.8.8.8 is public; only scan what is yours, and then name it in allow_public too",
    ]


@pytest.mark.parametrize("allowed", ['allow_public = ["8.8.8.0/33"]', 'alow_public = ["8.8.8.8"]'])
def test_while_it_is_not_known_what_is_allowed_nothing_is_called_public(read: Read, allowed: str) -> None:
    with pytest.raises(DeclarationError) as error:
        read(f'[service.x]\nkind = "scan"\ntargets = ["8.8.8.8", "224.0.0.1"]\n{allowed}')
    assert sorted(problem.line for problem in error.value.problems) == [3, 4]


@pytest.mark.parametrize("kind", ["", 'kind = "scna"\n'])
def test_a_wrong_kind_hides_nothing_but_what_only_it_can_say(read: Read, kind: str) -> None:
    keys = 'targets = ["8.8.8.8"]\nhour = 25\nlimits = { memory = "0.001%" }\nsecrets = ["missing"]'
    with pytest.raises(DeclarationError) as error:
        read(f"[service.x]\n{kind}{keys}")
    assert len(error.value.problems) == 5


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("command", 'evrey = "1h"\ntimeout = "10m"'),
        ("capture", 'every = "1h"\ntimeuot = "10m"'),
        ("capture", 'rotate = { sise = "16KiB" }\nbudget = "1MiB"'),
        ("capture", 'budegt = "1MiB"\nrotate = { size = "1GiB" }'),
        ("capture", 'snaplne = 96\nbudget = "64KiB"\nrotate = { size = "16KiB" }'),
        ("scan", 'target = ["10.0.0.1"]\nexclude = ["10.0.0.2"]'),
    ],
)
def test_an_unknown_key_is_told_once_and_not_as_the_absence_of_the_one_that_was_meant(
    read: Read, kind: str, keys: str
) -> None:
    own = MINIMAL[kind] if kind != "scan" else 'kind = "scan"\n'
    with pytest.raises(DeclarationError) as error:
        read(f"[service.x]\n{own}{keys}")
    [problem] = error.value.problems
    assert problem.text.startswith("unknown key; did you mean ")


def test_one_mistake_makes_one_problem(read: Read) -> None:
    assert complaints(read, "capture", 'rotate = { size = "big" }\nbudget = "1MiB"') == [
        '1 service.x.rotate.size: "big" is not a size; write a number of bytes or a number with a unit, '
        'such as "512M" or "20GiB"'
    ]


@pytest.mark.parametrize("field", ["minute", "hour", "day", "month", "weekday"])
def test_a_wrong_cron_field_is_told_by_its_name(read: Read, field: str) -> None:
    [complaint] = complaints(read, "command", f"{field} = 99")
    assert complaint.startswith(f"1 service.x.{field}: ")


def test_a_wrong_calendar_is_told_on_its_line(read: Read) -> None:
    [complaint] = complaints(read, "command", 'oncalendar = [\n"daily",\n"Mon..Foo"]')
    assert complaint.startswith("3 service.x.oncalendar: ")
    assert "Foo" in complaint
