"""No message quotes what came in through a variable that looks secret, however short, and in whatever form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.declaration.model import Declaration
from agent.errors import DeclarationError

Read = Callable[..., Declaration]

COMMAND = '[service.x]\nkind = "command"\ncommand = ["/bin/x"]\n'
CAPTURE = '[service.x]\nkind = "capture"\ninterfaces = ["lo"]\n'
SCAN = '[service.x]\nkind = "scan"\ntargets = ["10.0.0.1"]\n'


def texts(read: Read, keys: str, **sources: Any) -> list[str]:
    with pytest.raises(DeclarationError) as error:
        read(COMMAND + keys, **sources)
    return [problem.text for problem in error.value.problems]


def test_a_refused_secret_is_not_shown(read: Read) -> None:
    environ = {"DB_PASSWORD": "hunter2", "PIN": "x", "PLAIN": "hunter2"}
    keys = 'user = "a ${DB_PASSWORD}"\nstop_signal = "${PIN}"\nready = "${DB_PASSWORD}"\ngroup = "${PLAIN} b"'
    assert texts(read, keys, environ=environ) == [
        '"a ${DB_PASSWORD}" is not the name of a user or group',
        '"${PIN}" is not a signal such as "TERM"',
        '"${DB_PASSWORD}" is not one of immediate, notify, heartbeat',
        '"**** b" is not the name or number of a user or group',
    ]


def test_a_list_that_holds_a_short_secret_is_not_shown_either(read: Read) -> None:
    with pytest.raises(DeclarationError) as error:
        read('[service.x]\nkind = "command"\ncommand = ["${PIN}/x"]', {"PIN": "77"})
    assert "77" not in str(error.value)


def test_a_secret_that_is_written_out_is_not_shown_either(read: Read) -> None:
    keys = 'environment = { API_KEY = 77.5, PIN = "77$", DB_PASSWORD = "${PASSWORD:-77} 5$", PLAIN = "${KEY:-77} 5$" }'
    complaints = texts(read, keys)
    assert len(complaints) == 4
    assert "77" not in str(complaints)


def test_what_may_be_told_of_a_value_is_told(read: Read) -> None:
    environ = {"HOST": "db", "X_TOKEN": "77"}
    assert texts(read, 'user = "a ${HOST} ${NONE:-b} ${X_TOKEN:-c} $$"', environ=environ) == [
        '"a db b ${X_TOKEN} $" is not the name of a user or group'
    ]


NONSENSE = st.text("qjzQJZ%&;", min_size=1, max_size=12)
"""Letters of which no message is made, so that no secret is hidden by chance where it was not told."""


def number(low: int, high: int, form: str = "{}") -> st.SearchStrategy[str]:
    return st.integers(low, high).map(form.format)


FIELDS: list[tuple[str, st.SearchStrategy[str]]] = [
    ('[agent]\nserver = "${X_TOKEN}"', NONSENSE.map("%{}".format)),
    ('[agent]\nheartbeat = { interval = "${X_TOKEN}" }', NONSENSE | number(3700, 9999)),
    ('[service.x]\nkind = "${X_TOKEN}"\ncommand = ["/bin/x"]', NONSENSE),
    (COMMAND + 'user = "${X_TOKEN}"', NONSENSE.map("-{}".format)),
    (COMMAND + 'restart = "${X_TOKEN}"\nevery = "1h"', st.sampled_from(["always", "unless-stopped"])),
    (COMMAND + 'ready = "${X_TOKEN}"', NONSENSE | st.just("notifi")),
    (COMMAND + 'stop_signal = "${X_TOKEN}"', NONSENSE | number(65, 99999) | st.sampled_from(["STOP", "TREM"])),
    (COMMAND + 'stop_timeout = "${X_TOKEN}"', NONSENSE | number(90_000, 99_999, "{}s")),
    (COMMAND + 'max_restarts = "${X_TOKEN}"', NONSENSE | number(-99, -1)),
    (COMMAND + 'enabled = "${X_TOKEN}"', NONSENSE | number(2, 99)),
    (COMMAND + 'working_directory = "${X_TOKEN}"', NONSENSE),
    (COMMAND + 'env_file = "${X_TOKEN}"', NONSENSE),
    (COMMAND + 'env_file = ["${X_TOKEN}"]', NONSENSE),
    (COMMAND + 'env_file = "${X_TOKEN}"', st.sampled_from(["u.env", "v.env"])),
    (COMMAND + 'secrets = ["${X_TOKEN}"]', NONSENSE.map("%{}".format)),
    (COMMAND + 'secrets = ["${X_TOKEN}"]', st.sampled_from(["missing", "missing_too"])),
    (COMMAND + 'secrets = ["${X_TOKEN}"]\nenvironment = { U_FILE = 1, V_FILE = 2 }', st.sampled_from(["u", "v"])),
    (COMMAND + 'secrets = ["u", "v", "${X_TOKEN}"]', st.sampled_from(["u", "v", "V"])),
    (COMMAND + 'log = { size = "${X_TOKEN}" }', NONSENSE | number(1, 4095)),
    (COMMAND + 'limits = { memory = "${X_TOKEN}" }', NONSENSE | number(101, 999, "{}%")),
    (COMMAND + 'limits = { memory = "${X_TOKEN}" }', number(1, 9, "0.00{}%")),
    (COMMAND + 'heartbeat = { interval = "${X_TOKEN}", timeout = "30s" }', number(16, 59, "{}s")),
    (COMMAND + 'heartbeat = { interval = "30s", timeout = "${X_TOKEN}" }', number(1, 59, "{}s")),
    (COMMAND + 'oncalendar = "${X_TOKEN}"', NONSENSE | number(25, 99, "Mon..Fri {}:00")),
    (COMMAND + 'oncalendar = ["daily", "Mon ${X_TOKEN}"]', NONSENSE | number(25, 99, "{}:00")),
    (COMMAND + 'oncalendar = ["${X_TOKEN}"]', number(1970, 2020, "{}-2-30")),
    (COMMAND + 'oncalendar = ["daily", "hourly", "${X_TOKEN}"]', st.sampled_from(["daily", "hourly"])),
    (COMMAND + 'hour = "${X_TOKEN}"', number(24, 9999) | number(1, 4, "5-{}") | number(1, 9, "{}x")),
    (COMMAND + 'month = 2\nday = "${X_TOKEN}"', number(30, 31)),
    (COMMAND + 'every = "${X_TOKEN}"', NONSENSE | number(400, 999, "{}d")),
    ('[service.x]\nkind = "command"\ncommand = ["${X_TOKEN}/x"]', NONSENSE),
    ('[service.x]\nkind = "command"\ncommand = ["${X_TOKEN}"]', NONSENSE.map("q {}".format)),
    ('[service.x]\nkind = "capture"\ninterfaces = ["${X_TOKEN}"]', NONSENSE.map("{}[".format) | number(10**15, 10**20)),
    (CAPTURE + 'budget = "${X_TOKEN}"', number(33, 999, "{}KiB")),
    (CAPTURE + 'rotate = { size = "${X_TOKEN}" }', number(1, 16, "{}GiB")),
    (CAPTURE + 'rotate = { size = "16KiB" }\nbudget = "100KiB"\nsnaplen = "${X_TOKEN}"', number(60_000, 262_144)),
    (CAPTURE + 'filter = "${X_TOKEN}"', st.integers(4097, 5000).map("q".__mul__)),
    ('[service.x]\nkind = "scan"\ntargets = ["${X_TOKEN}"]', number(1, 200, "8.8.8.{}") | number(224, 239, "{}.0.0.1")),
    ('[service.x]\nkind = "scan"\ntargets = ["${X_TOKEN}"]', number(1, 9, "10.0.0.{}/8") | NONSENSE.map("?{}".format)),
    ('[service.x]\nkind = "scan"\ntargets = ["10.0.0.0/${X_TOKEN}"]', number(9, 15)),
    (SCAN + 'exclude = ["${X_TOKEN}"]', NONSENSE.map("?{}".format) | number(256, 999, "10.0.0.{}")),
    (SCAN + 'exclude = ["10.0.0.1-${X_TOKEN}"]', number(256, 999)),
    ('[service.x]\nkind = "scan"\ntargets = ["10.0.0.${X_TOKEN}-4"]', number(5, 250)),
    ('[service.x]\nkind = "scan"\ntargets = ["file:/nowhere/${X_TOKEN}"]', NONSENSE),
    ('[service.x]\nkind = "scan"\ntargets = ["10.0.0.0/29", "10.0.0.${X_TOKEN}"]', st.just("7")),
    (
        SCAN + 'profile = "full"\nscripts = ["${X_TOKEN}"]',
        NONSENSE.map("/{}".format) | st.sampled_from(["vuln", "all"]),
    ),
    (SCAN + 'window = "${X_TOKEN}"', NONSENSE | number(25, 99, "{}:00-23:00")),
    (SCAN + 'site = "${X_TOKEN}"', NONSENSE.map("%{}".format)),
    (SCAN + '[scanning]\nrate = "${X_TOKEN}"', NONSENSE | number(-99, 0)),
    ('[ports]\nshop = "${X_TOKEN}"', NONSENSE | number(65_536, 99_999)),
    ('[expect.x]\nhosts = ["${X_TOKEN}"]\nothers = true', NONSENSE.map("?{}".format)),
    ('[expect.x]\nhosts = ["10.0.0.1"]\nopen = ["${X_TOKEN}"]', NONSENSE | number(65_536, 99_999)),
    ('[expect.x]\nhosts = ["10.0.0.1"]\nopen = [{ port = "${X_TOKEN}" }]', NONSENSE | number(65_536, 99_999)),
    ('[expect.x]\nhosts = ["10.0.0.1"]\nopen = [80]\nclosed = ["1-${X_TOKEN}"]', number(80, 99)),
    ('[notify.x]\nwebhook = "${X_TOKEN}"', NONSENSE | number(1, 9, "http://8.8.8.{}/")),
    ('[notify.x]\nwebhook = "https://a/ ${X_TOKEN}"', NONSENSE),
    ('[notify.x]\nemail = "${X_TOKEN}"', NONSENSE.map("@{}".format)),
    ('[notify.x]\nwebhook = "https://a"\nsecret = "${X_TOKEN}"', st.sampled_from(["missing", "missing_too"])),
    ('[notify.x]\nemail = "root"\nkinds = ["${X_TOKEN}"]', NONSENSE.map("?{} ".format)),
    ('[notify.x]\nemail = "root"\nseverity = "${X_TOKEN}"', NONSENSE),
    ('[notify.x]\ncommand = ["${X_TOKEN}/x"]', NONSENSE),
    (SCAN + 'ports = "${X_TOKEN}"', NONSENSE | number(65_536, 99_999) | number(1, 6, "7-{}")),
]
SOURCES = st.sampled_from(["environment", ".env", "default"])


@pytest.mark.parametrize(("text", "values"), FIELDS, ids=range(len(FIELDS)))
def test_messages_are_the_same_whatever_the_secret_is(read: Read, text: str, values: st.SearchStrategy[str]) -> None:
    def complaint(secret: str, source: str) -> list[str]:
        files = {"u.env": "words", "v.env": "words"}
        environ: dict[str, str] = {}
        written = text
        if source == "environment":
            environ["X_TOKEN"] = secret
        elif source == ".env":
            files[".env"] = f"X_TOKEN='{secret}'"
        else:
            written = text.replace("${X_TOKEN}", f"${{X_TOKEN:-{secret}}}")
        with pytest.raises(DeclarationError) as error:
            read(written, environ, files)
        return str(error.value).split("\n")

    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(values, values, SOURCES, SOURCES)
    def compared(one: str, other: str, here: str, there: str) -> None:
        told = complaint(one, here)
        assert told == complaint(other, there)
        assert "${X_TOKEN}" in str(told)

    compared()
