"""The effective declaration, masked, and readable as a declaration again."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.declaration.model import Declaration
from agent.declaration.show import effective, render

Read = Callable[..., Declaration]

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10)
DURATION = st.integers(1_000_000, 3_600_000_000).map(lambda microseconds: microseconds / 1_000_000)
SIZE = st.integers(1024**2, 1024**3)
HALF_SECONDS = st.integers(100, 500).map(lambda milliseconds: f"{milliseconds}ms")
SECONDS = st.integers(1_000_000, 9_000_000).map(lambda microseconds: microseconds / 1_000_000)
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "agent")
VARIABLE = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not name.startswith(("SERVICE_", "WATCHDOG_", "LISTEN_", "NOTIFY"))
)
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "enabled": st.booleans(),
    "max_restarts": st.integers(0, 100),
    "restart_window": DURATION,
    "stop_signal": st.sampled_from(["TERM", "SIGINT", 9, 40]),
    "stop_timeout": DURATION,
    "start_timeout": st.sampled_from(["90s", "1h30m", "500ms", 7]),
    "ready": st.sampled_from(["immediate", "notify", "heartbeat"]),
    "user": st.sampled_from(["root", "1000"]),
    "group": st.just("adm"),
    "working_directory": TEXT.map(lambda text: "/" + text),
    "environment": st.dictionaries(VARIABLE, st.one_of(TEXT, st.booleans(), st.integers(-9, 9)), max_size=3),
    "secrets": st.just(["token"]),
    "log": st.fixed_dictionaries({}, optional={"size": SIZE, "keep": st.integers(0, 9)}),
    "heartbeat": st.fixed_dictionaries({}, optional={"interval": HALF_SECONDS, "timeout": SECONDS}),
    "limits": st.fixed_dictionaries(
        {},
        optional={"memory": st.one_of(SIZE, st.just("33%")), "cpus": st.floats(0.01, 64), "pids": st.integers(1, 99)},
    ),
}
WHEN: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"restart": "on-failure"}),
    st.fixed_dictionaries({"every": DURATION, "timeout": DURATION}, optional={"randomized_delay": DURATION}),
    st.fixed_dictionaries(
        {
            "oncalendar": st.sampled_from(["daily", " Mon..Fri 02:30 ", ["daily", "Sat *-*~1 12:00"]]),
            "timeout": DURATION,
        },
        optional={"randomized_delay": DURATION, "persistent": st.booleans()},
    ),
    st.just({"minute": "*/5", "weekday": "mon-fri", "restart": "no", "timeout": 5}),
)
OWN: list[dict[str, st.SearchStrategy[Any]]] = [
    {
        "kind": st.just("capture"),
        "interfaces": st.just(["eth0", "lo"]),
        "filter": TEXT,
        "budget": st.integers(4 * 1024**3, 1024**4),
        "min_free": st.sampled_from(["10%", "33.3%", "0.01%", "10GiB", 0, 12345]),
        "max_age": st.integers(60, 10**8),
        "rotate": st.fixed_dictionaries({"size": SIZE, "every": DURATION}),
        "snaplen": st.integers(1, 262144),
        "promiscuous": st.booleans(),
        "ring": SIZE,
    },
    {
        "kind": st.just("scan"),
        "targets": st.just(["10.0.0.0/24", "10.1.0.7-9", "NAS.example.org", "fe80::1%eth0", "8.8.8.8"]),
        "exclude": st.sampled_from([[], ["10.0.0.7"], ["printer", "10.0.0.1-2"]]),
        "allow_public": st.just(["8.8.8.8"]),
        "ports": st.sampled_from(["1-100", "443,80", 22, "web,udp/53,top-9", "shop,udp/top-3"]),
        "profile": st.sampled_from(["ports", "services"]),
        "rate": st.integers(1, 1_000_000),
        "retries": st.integers(0, 10),
        "engine": st.sampled_from(["auto", "connect", "syn"]),
        "window": st.sampled_from(["22:00-6:00", ["Fri..Mon 1:00-2:00", "Sat 00:00-24:00"]]),
        "history": st.fixed_dictionaries({}, optional={"max_age": st.just("9d"), "size": SIZE, "raw": DURATION}),
    },
    {
        "kind": st.just("scan"),
        "targets": st.just(["10.0.0.1"]),
        "profile": st.just("full"),
        "scripts": st.sampled_from([[], ["ssh-hostkey", "ssl-cert"]]),
        "silent_again": st.sampled_from(["1m", "3d"]),
        "site": st.just("berlin"),
    },
    {"kind": st.just("scan"), "targets": st.just(["::1"]), "profile": st.just("discovery")},
    {"kind": st.just("command"), "command": st.lists(TEXT, max_size=3).map(lambda arguments: ["/bin/x", *arguments])},
    {
        "kind": st.just("command"),
        "command": st.just(["/bin/x"]),
        "listens": st.sampled_from([80, "shop,udp/1-3"]),
        "capabilities": st.lists(st.sampled_from(["net_raw", "CAP_CHOWN", "Sys_Time"]), unique=True),
    },
]


def written(value: Any) -> Any:
    """As a person has to write it: a dollar sign is two."""
    if isinstance(value, dict):
        return {key: written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [written(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


SERVICE = st.one_of(
    [
        st.tuples(st.fixed_dictionaries(own), WHEN, st.fixed_dictionaries({}, optional=SHARED)).map(
            lambda parts: parts[0] | parts[1] | parts[2]
        )
        for own in OWN
    ]
)
AGENT = st.fixed_dictionaries(
    {},
    optional={
        "server": st.just("hel1v5"),
        "group": st.just("ops"),
        "scheduler": st.sampled_from(["agent", "systemd"]),
        "heartbeat": st.just({"interval": "1m"}),
    },
)


SEVERITY = st.sampled_from(["info", "notice", "warning", "err"])
PATTERN = TEXT.filter(str.isprintable)
EXPECT = st.fixed_dictionaries(
    {"hosts": st.sampled_from([["10.0.0.1"], ["10.0.0.0/24", "10.1.0.1-9", "NAS"]]), "others": st.booleans()},
    optional={
        "open": st.lists(
            st.sampled_from([22, "80,udp/53", "web"])
            | st.fixed_dictionaries({"port": st.just("8000-8003")}, optional={"service": PATTERN, "version": PATTERN}),
            max_size=3,
        ),
        "closed": st.sampled_from([[], ["23,shop"]]),
        "severity": SEVERITY,
    },
)
SINKS: list[dict[str, Any]] = [
    {"webhook": "https://x.example.org/a?b=c$", "secret": "token"},
    {"email": "a@b"},
    {"command": ["/bin/x", "$y"]},
]
FILTER = {"kinds": st.just(["drift_*"]), "services": st.just(["lan"]), "severity": SEVERITY, "group": DURATION}
NOTIFY = st.tuples(st.sampled_from(SINKS), st.fixed_dictionaries({}, optional=FILTER)).map(
    lambda parts: parts[0] | parts[1]
)
MORE = st.fixed_dictionaries(
    {"ports": st.just({"shop": "9777,udp/9778"}) | st.just({"shop": 9777})},
    optional={
        "scanning": st.fixed_dictionaries({}, optional={"rate": st.integers(1, 9), "target_rate": st.just(7)}),
        "expect": st.dictionaries(NAME, EXPECT, max_size=2),
        "notify": st.dictionaries(NAME, NOTIFY, max_size=2),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(AGENT, st.dictionaries(NAME, SERVICE, max_size=3), MORE)
def test_what_is_rendered_reads_back_the_same(
    read: Read, agent: dict[str, Any], services: dict[str, Any], more: dict[str, Any]
) -> None:
    declaration = read(tomli_w.dumps(written({"agent": agent, "service": services, **more})))
    again = read(render(msgspec.structs.replace(declaration, masked=frozenset(), masked_fields=frozenset())))
    assert again == declaration
    assert render(again) == render(declaration)


def test_the_effective_declaration_spells_out_defaults_in_readable_units(read: Read) -> None:
    text = '[service.x]\nkind = "capture"\ninterfaces = ["lo"]\nstop_timeout = 90'
    assert effective(read(text)) == {
        "agent": {"server": "host", "scheduler": "agent", "heartbeat": {"interval": "10s"}},
        "service": {
            "x": {
                "kind": "capture",
                "interfaces": ["lo"],
                "filter": "",
                "budget": "1GiB",
                "min_free": "2%",
                "rotate": {"size": "64MiB", "every": "1m"},
                "snaplen": 262144,
                "promiscuous": False,
                "fanout": 1,
                "ring": "64MiB",
                "enabled": True,
                "restart": "always",
                "max_restarts": 10,
                "restart_window": "5m",
                "stop_signal": "TERM",
                "stop_timeout": "1m30s",
                "start_timeout": "1m30s",
                "ready": "notify",
                "log": {"size": "10MiB", "keep": 5},
                "heartbeat": {"interval": "10s", "timeout": "30s"},
            }
        },
    }


def test_everything_is_merged_and_interpolated(read: Read) -> None:
    text = '[service.x]\nkind = "command"\ncommand = ["/bin/x", "${PORT:-80}"]\nenv_file = "x.env"\nminute = 5'
    shown = effective(read(text, {}, {"x.env": "A=1"}))["service"]["x"]
    assert shown["command"] == ["/bin/x", "80"]
    assert shown["environment"] == {"A": "1"}
    assert {key: shown[key] for key in ("minute", "hour", "day", "month", "weekday")} == {
        "minute": "5", "hour": "*", "day": "*", "month": "*", "weekday": "*",
    }  # fmt: skip
    assert (shown["randomized_delay"], shown["persistent"]) == ("0s", False)


SECRETS = """
[service.x]
kind = "command"
command = ["/bin/x", "--dsn=postgres://u:${DB_PASSWORD}@h/db", "--pin=${PIN}", "a"]
env_file = "x.env"
environment = { API_TOKEN = "written", COPY = "is written too", PLAIN = "plain" }
stop_timeout = "${KEY_TIMEOUT}"
log = { keep = "${KEY_KEEP}" }
oncalendar = "${CALENDAR_SECRET}"
"""


def test_secrets_are_masked_wherever_they_stand(read: Read) -> None:
    environ = {"DB_PASSWORD": "hunter22", "PIN": "a", "KEY_TIMEOUT": "77s", "KEY_KEEP": "3", "CALENDAR_SECRET": "daily"}
    declaration = read(SECRETS, environ, {"x.env": "FILE_SECRET=from file"})
    shown = effective(declaration)["service"]["x"]
    assert shown["command"] == ["/bin/x", "--dsn=postgres://u:****@h/db", "****", "a"]
    assert shown["environment"] == {
        "API_TOKEN": "****",
        "COPY": "is **** too",
        "PLAIN": "plain",
        "FILE_SECRET": "****",
    }
    assert (shown["stop_timeout"], shown["log"]["keep"], shown["oncalendar"]) == ("****", "****", "****")
    text = render(declaration)
    assert not [secret for secret in ("hunter22", "written", "from file", "77", "1m17s", "daily") if secret in text]


def test_services_of_projects_say_where_they_come_from(read: Read) -> None:
    service = 'kind = "command"\ncommand = ["/bin/x"]\n'
    text = render(read(f"[service.a]\n{service}", {}, {"projects/web.toml": f"[service.b]\n{service}"}))
    assert text.startswith("# Effective declaration of /k/env.toml\n")
    assert "# from projects/web.toml\n[service.b]\n" in text
    assert list(tomllib.loads(text)["service"]) == ["a", "b"]


@pytest.mark.parametrize("value", ["5$$", "$$$${X}", "tab\\t\\u007f\\n", "é\U0001f600"])
def test_odd_text_survives(read: Read, value: str) -> None:
    declaration = read(f'[service.x]\nkind = "command"\ncommand = ["/bin/x", "{value}"]')
    assert read(render(declaration)) == declaration


def test_capabilities_are_shown_in_one_spelling_and_their_absence_too(read: Read) -> None:
    text = '[service.x]\nkind = "command"\ncommand = ["x"]\ncapabilities = '
    for written_as, shown in (('["net_raw", "chown"]', ["CAP_CHOWN", "CAP_NET_RAW"]), ("[]", [])):
        assert effective(read(text + written_as))["service"]["x"]["capabilities"] == shown
    assert "capabilities" not in effective(read(text.removesuffix("capabilities = ")))["service"]["x"]
