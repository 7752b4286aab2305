"""Interpolation inside typed keys, hidden values, and bounds on what one declaration may cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from agent.declaration.model import Command, Declaration, Scan
from agent.errors import DeclarationError

Read = Callable[..., Declaration]

COMMAND = '[service.x]\nkind = "command"\ncommand = ["/bin/x"]\n'


def texts(read: Read, keys: str, **sources: Any) -> list[str]:
    with pytest.raises(DeclarationError) as error:
        read(COMMAND + keys, **sources)
    return [problem.text for problem in error.value.problems]


def test_a_variable_may_stand_for_a_value_of_any_type(read: Read) -> None:
    text = """
    [service.x]
    kind = "${KIND}"
    targets = ["${TARGET}", "10.0.0.2"]
    rate = "${RATE:-2000}"
    enabled = "${ENABLED}"
    limits = { cpus = "${CPUS}", memory = "${MEMORY:-50%}" }
    stop_timeout = "${STOP}"
    """
    environ = {"KIND": "scan", "TARGET": "10.0.0.1", "ENABLED": "false", "CPUS": "0.5", "STOP": "5"}
    scan = read(text, environ).services["x"]
    assert isinstance(scan, Scan)
    assert scan.targets == ("10.0.0.1", "10.0.0.2")
    assert (scan.rate, scan.enabled, scan.limits.cpus, scan.stop_timeout) == (2000, False, 0.5, 5.0)


def test_written_values_have_the_type_of_their_key(read: Read) -> None:
    assert texts(read, 'max_restarts = "5"\nenabled = "true"\nuser = 5\nlimits = { cpus = "1" }\nlog = 5') == [
        '"5" is not a whole number, from 0 to 1000000',
        '"true" is not true or false',
        "5 is not the name of a user or group",
        '"1" is not a number of processors, from 0.01 to 4096',
        "5 is not a table with size and keep",
    ]


def test_what_was_probably_meant_is_said_of_signals_and_capabilities_too(read: Read) -> None:
    assert texts(read, 'stop_signal = "TREM"\ncapabilities = ["net_rwa", "CAP_SYS_TIME", "xyz", 5]') == [
        '"TREM" is not a signal; did you mean TERM?',
        '"net_rwa" is not a capability; did you mean CAP_NET_RAW?',
        '"xyz" is not a capability; capabilities(7) lists them all',
        '5 is not a capability such as "CAP_NET_BIND_SERVICE"',
    ]


def test_capabilities_are_read_in_any_spelling_and_twice_is_once_too_often(read: Read) -> None:
    service = read(COMMAND + 'capabilities = ["net_raw", "Cap_Chown"]').services["x"]
    assert isinstance(service, Command)
    assert service.capabilities == ("CAP_CHOWN", "CAP_NET_RAW")
    assert texts(read, 'capabilities = ["net_raw", "CAP_NET_RAW"]') == ['"CAP_NET_RAW" stands there twice']


def test_no_capabilities_are_something_else_than_none_declared(read: Read) -> None:
    for keys, expected in (("", None), ("capabilities = []", ())):
        service = read(COMMAND + keys).services["x"]
        assert isinstance(service, Command)
        assert service.capabilities == expected


@pytest.mark.parametrize(
    "value", ["true", "1.5", "-1", "nan", "1000001", "1979-05-27", "[]", "{}", '""', "0x" + "f" * 5000]
)
def test_what_is_no_whole_number_in_range_is_refused(read: Read, value: str) -> None:
    [text] = texts(read, f"max_restarts = {value}")
    assert text.endswith(" is not a whole number, from 0 to 1000000")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "1e308", "true"])
def test_what_is_no_number_in_range_is_refused(read: Read, value: str) -> None:
    [text] = texts(read, f"limits = {{ cpus = {value} }}")
    assert text.endswith(" is not a number of processors, from 0.01 to 4096")


def test_what_a_variable_holds_is_not_read_as_toml_or_searched_again(read: Read) -> None:
    value = '"] \n[service.y] ${HOME} $$'
    declaration = read(COMMAND + 'environment = { A = "${A}" }', {"A": value, "HOME": "/root"})
    assert declaration.services["x"].environment == {"A": value}
    assert list(declaration.services) == ["x"]


def test_a_word_of_a_closed_list_is_suggested(read: Read) -> None:
    assert texts(read, 'restart = "alway"\nready = "perhaps"') == [
        '"alway" is not one of no, always, on-failure, unless-stopped; did you mean always?',
        '"perhaps" is not one of immediate, notify, heartbeat',
    ]


def test_bytes_that_are_no_text_are_refused(read: Read) -> None:
    assert texts(read, 'environment = { A = "${A}", B = "\\u0000" }', environ={"A": "\udc80"}) == [
        "holds bytes of the environment that are not UTF-8",
        "holds a NUL character, which nothing here can",
    ]


def test_secrets_are_collected_by_the_names_of_their_variables(read: Read) -> None:
    text = """
    [service.x]
    kind = "command"
    command = ["/bin/x", "--dsn=postgres://u:${DB_PASSWORD}@h/${DB_NAME}", "${API_TOKEN:-tkn}"]
    env_file = "x.env"
    environment = { MY_SECRET = "written", PLAIN = "plain", EMPTY_KEY = "" }
    """
    files = {"x.env": "FILE_PASSWD=from file\nPLAINER=y"}
    declaration = read(text, {"DB_PASSWORD": "hunter2", "DB_NAME": "db"}, files)
    assert declaration.masked == {"hunter2", "tkn", "written", "from file"}
    assert declaration.masked_fields == {
        "service.x.command.1",
        "service.x.command.2",
        "service.x.environment.MY_SECRET",
        "service.x.environment.FILE_PASSWD",
    }


def test_interpolation_cannot_be_made_to_fill_the_memory(read: Read) -> None:
    variables = ", ".join(f'V{number} = "${{A}}"' for number in range(1000))
    started = time.process_time()
    complaints = texts(read, f"environment = {{ {variables} }}", environ={"A": "x" * 100_000})
    assert "more than 4194304 characters of interpolated text in one declaration" in complaints
    assert time.process_time() - started < 5


def test_ten_thousand_mistakes_are_told_in_reasonable_time(read: Read) -> None:
    started = time.process_time()
    complaints = texts(read, "".join(f"restart{n} = 1\n" for n in range(10_000)))
    assert len(complaints) == 10_000
    assert complaints[0] == "unknown key; did you mean restart?"
    assert time.process_time() - started < 5


def test_lists_are_bounded(read: Read) -> None:
    assert texts(read, f"env_file = [{'1,' * 33}]") == ["33 items; at most 32 are allowed"]
    with pytest.raises(DeclarationError, match="1025 items; at most 1024 are allowed"):
        read(f'[service.x]\nkind = "command"\ncommand = [{"1," * 1025}]')
    variables = ", ".join(f"A{number} = 1" for number in range(1025))
    assert texts(read, f"environment = {{ {variables} }}") == ["more than 1024 variables"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('comand = ["/bin/x"]', ["unknown key; did you mean command?"]),
        ('command = [5, "${NONE"]', ['"${NONE" has no closing brace', "5 is not the path or the name of a program"]),
        ('command = ["bin/x", 5]', ['"bin/x" is a relative path', "5 is not a text"]),
    ],
)
def test_an_unknown_key_stands_for_the_one_that_was_meant_and_items_are_told_apart(
    read: Read, keys: str, expected: list[str]
) -> None:
    with pytest.raises(DeclarationError) as error:
        read(f'[service.x]\nkind = "command"\n{keys}')
    problems = [problem.text for problem in error.value.problems]
    assert len(problems) == len(expected)
    assert all(problem.startswith(words) for problem, words in zip(problems, expected, strict=True))


def test_an_unknown_key_that_looks_like_kind_is_enough_said(read: Read) -> None:
    with pytest.raises(DeclarationError) as error:
        read('[service.x]\nkimd = "command"\ncommand = ["/bin/x"]')
    assert [problem.text for problem in error.value.problems] == ["unknown key; did you mean kind?"]


def test_something_that_stands_twice_is_told_beside_something_unusable(read: Read) -> None:
    with pytest.raises(DeclarationError) as error:
        read('[service.x]\nkind = "capture"\ninterfaces = ["eth[", "lo", "lo"]')
    assert [problem.text for problem in error.value.problems] == [
        '"eth[" has a [ without its ]; write one such as eth[0-3]',
        '"lo" stands there twice',
    ]
