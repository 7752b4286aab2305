"""Single values: what they may be, and what is said of what they may not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration import check
from agent.declaration.model import Reserve
from agent.errors import UsageError
from agent.linux.capability_sets import NAMES as CAPABILITIES


def refusal(parse: Callable[[Any], object], value: object) -> str:
    with pytest.raises(UsageError) as error:
        parse(value)
    return str(error.value)


@pytest.mark.parametrize("name", ["a", "edge_capture", "a1_", "x" * 63])
def test_a_service_may_be_called(name: str) -> None:
    assert check.service_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("edge-capture", "a name holds no dash; use an underscore: edge_capture"),
        ("Edge-Capture", "a name holds no dash; use an underscore: edge_capture"),
        ("Edge", "a name is in lower case: edge"),
        ("agent", "the name agent is the agent's own; choose another"),
        ("x" * 64, "a name has at most 63 characters"),
        ("1a", "a name begins with a letter a to z; letters, digits and underscores follow, 63 characters in all"),
        ("", "a name begins with a letter a to z; letters, digits and underscores follow, 63 characters in all"),
        ("a\n", "a name begins with a letter a to z; letters, digits and underscores follow, 63 characters in all"),
        ("../x", "a name begins with a letter a to z; letters, digits and underscores follow, 63 characters in all"),
    ],
)
def test_a_service_may_not_be_called(name: str, message: str) -> None:
    assert refusal(check.service_name, name) == message


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("TERM", signal.SIGTERM),
        ("SIGINT", signal.SIGINT),
        ("hup", signal.SIGHUP),
        (9, signal.SIGKILL),
        ("15", signal.SIGTERM),
        (40, 40),
        ("RTMIN", signal.SIGRTMIN),
    ],
)
def test_a_signal_is_a_name_or_a_number(value: str | int, number: int) -> None:
    assert check.stop_signal(value) == number


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("TREM", '"TREM" is not a signal; write a name such as "TERM", or a number'),
        ("SIGFOO_BAR", '"SIGFOO_BAR" is not a signal; write a name such as "TERM", or a number'),
        (0, "0 is not a signal; numbers go from 1 to 64"),
        (65, "65 is not a signal; numbers go from 1 to 64"),
        ("STOP", '"STOP" does not end a process; write "TERM", "INT", "QUIT" or "HUP"'),
        (18, '18 does not end a process; write "TERM", "INT", "QUIT" or "HUP"'),
    ],
)
def test_what_cannot_stop_a_process_is_refused(value: str | int, message: str) -> None:
    assert refusal(check.stop_signal, value) == message


@given(
    st.sampled_from(CAPABILITIES),
    st.sampled_from([str.upper, str.lower, str.title]),
    st.sampled_from(["CAP_", ""]),
)
def test_a_capability_has_one_spelling_however_it_is_written(name: str, case: Callable[[str], str], head: str) -> None:
    assert check.capability(case(head + name.removeprefix("CAP_"))) == name


@given(st.text(max_size=40) | st.sampled_from(["CAP_", "cap_cap_chown", "net raw", "13", "chown\n", "\u017fys_admin"]))
def test_what_is_no_capability_is_refused_in_one_line(text: str) -> None:
    try:
        found = check.capability(text)
    except UsageError as error:
        assert "is not a capability; capabilities(7) lists them all" in str(error)
        assert str(error).isprintable()
    else:
        assert text.isascii() and found in CAPABILITIES


@given(st.lists(st.sampled_from(CAPABILITIES), unique=True))
def test_capabilities_are_a_set(names: list[str]) -> None:
    assert check.capabilities(names) == check.capabilities(names[::-1]) == tuple(sorted(names))


def test_a_capability_stands_there_once() -> None:
    assert refusal(check.capabilities, ["CAP_CHOWN", "CAP_CHOWN"]) == '"CAP_CHOWN" stands there twice'


@pytest.mark.parametrize("user", ["root", "www-data", "_apt", "svc.web", "1000", "0"])
def test_a_user_is_a_name_or_a_number(user: str) -> None:
    assert check.account(user) == user


@pytest.mark.parametrize("user", ["-x", "a b", "", "4294967295", "99999999999", "a" * 33, "root\n", "007"])
def test_what_is_no_user_is_refused(user: str) -> None:
    assert refusal(check.account, user).endswith(" is not the name or number of a user or group")


def test_a_program_is_an_absolute_path_or_a_bare_name() -> None:
    assert check.program("/opt/my app/x") == "/opt/my app/x"
    assert check.program("python3") == "python3"
    assert (
        refusal(check.program, "bin/x") == '"bin/x" is a relative path; write an absolute one, or a bare name for PATH'
    )
    assert refusal(check.program, "") == "the program, the first item, is empty; write its path or its name"
    assert (
        refusal(check.program, "sleep 5")
        == '"sleep 5" is no program\'s name; there is no shell: give each argument as an item'
    )


def test_an_argument_fits_into_the_kernel() -> None:
    assert check.argument("é" * 65535) == "é" * 65535
    assert refusal(check.argument, "é" * 65536) == "longer than the 131071 bytes that one argument may have"


@pytest.mark.parametrize("name", ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "SERVICE_NAME"])
def test_what_the_agent_tells_its_children_cannot_be_declared(name: str) -> None:
    assert refusal(check.variable_name, name) == "set by the agent itself; choose another name"


def test_variables_have_the_names_that_a_shell_allows() -> None:
    assert check.variable_name("_Path2") == "_Path2"
    for name in ("", "1A", "A-B", "A=B", "A\n", "É"):
        assert (
            refusal(check.variable_name, name) == "not a variable's name; use letters, digits and _, and no digit first"
        )


def test_the_value_of_a_variable_is_text() -> None:
    assert [check.variable_value(value) for value in ("x", 5, True, False)] == ["x", "5", "true", "false"]


@pytest.mark.parametrize("name", ["*", "eth*", "eth1.*", "[!l]*", "veth????", "!eth3", "!docker*", "eth[0-9]"])
def test_a_pattern_stands_for_the_interfaces_that_match_it(name: str) -> None:
    assert check.interface(name) == name


def test_not_all_interfaces_are_to_be_left_out() -> None:
    assert check.interfaces(["eth*", "!eth3"]) == ("eth*", "!eth3")
    assert "left out" in refusal(check.interfaces, ["!eth3", "!lo"])


@pytest.mark.parametrize("name", ["lo", "eth0", "eth0.100", "br-lan", "any", "wlp0s20f3", "@x", "é" * 7])
def test_an_interface_has_a_name_the_kernel_allows(name: str) -> None:
    assert check.interface(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eth[0-9", '"eth[0-9" has a [ without its ]; write one such as eth[0-3]'),
        ("!", '"!" is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
        ("eth*/x", '"eth*/x" is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
        ("*" * 65, f'"{"*" * 59}…" is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
        ("", '"" is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
        ("x" * 16, f'"{"x" * 16}" is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
        ("a/b", '"a/b" is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
        ("..", '".." is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
        ("a b", '"a b" is not an interface\'s name; it has 1 to 15 bytes, no / : space'),
    ],
)
def test_what_is_no_interface_is_refused(name: str, message: str) -> None:
    assert refusal(check.interface, name) == message


def test_nothing_stands_twice_in_a_list_of_names() -> None:
    assert check.distinct(["a", "b"]) == ("a", "b")
    assert refusal(check.distinct, ["a", "b", "a"]) == '"a" stands there twice'
    assert check.secrets(["db", "API"]) == ("db", "API")
    assert refusal(check.secrets, ["db", "DB"]) == '"DB" stands there twice'


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a.b", "1a", "a" * 64])
def test_a_secret_is_a_plain_name(name: str) -> None:
    assert refusal(check.secret_name, name).endswith("is not a secret's name; use letters, digits and _, and no path")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vuln", '"vuln" is a category of scripts; write the names of those that are to run'),
        ("default", '"default" is a category of scripts; write the names of those that are to run'),
        ("/tmp/x.nse", '"/tmp/x.nse" is not a script\'s name; write one such as "ssh-hostkey", without a path'),
        ("ssh-* and safe", '"ssh-* and safe" is not a script\'s name; write one such as "ssh-hostkey", without a path'),
        ("x.nse", '"x.nse" is not a script\'s name; write one such as "ssh-hostkey", without a path'),
        ("a..b", '"a..b" is not a script\'s name; write one such as "ssh-hostkey", without a path'),
        ("+ssh-hostkey", '"+ssh-hostkey" is not a script\'s name; write one such as "ssh-hostkey", without a path'),
        ("-oN", '"-oN" is not a script\'s name; write one such as "ssh-hostkey", without a path'),
        ("broadcast-ping", '"broadcast-ping" asks hosts that are not among the targets; leave it out'),
        ("targets-asn", '"targets-asn" asks hosts that are not among the targets; leave it out'),
    ],
)
def test_what_is_no_name_of_a_script_is_refused(text: str, message: str) -> None:
    assert refusal(check.script, text) == message


def test_every_script_that_nmap_brings_can_be_named_unless_it_asks_others() -> None:
    scripts = [path.stem for path in Path("/usr/share/nmap/scripts").glob("*.nse")]
    assert len(scripts) > 400
    for name in scripts:
        if name.startswith(("broadcast-", "targets-")):
            refusal(check.script, name)
        else:
            assert check.script(name) == name


def test_a_duration_has_the_range_of_its_key() -> None:
    parse = check.duration("1s", "1d")
    assert parse("1m") == 60
    assert refusal(parse, "500ms") == '"500ms" is out of range; write 1s to 1d'
    assert refusal(parse, 0) == "0 is out of range; write 1s to 1d"
    assert refusal(parse, 86_401) == "86401 is out of range; write 1s to 1d"


def test_a_size_has_the_range_of_its_key() -> None:
    parse = check.size("4KiB", "1GiB")
    assert parse("1M") == 1024**2
    assert refusal(parse, 0) == "0 is out of range; write 4KiB to 1GiB"
    assert refusal(parse, "2G") == '"2G" is out of range; write 4KiB to 1GiB'


def test_memory_is_a_size_or_a_share() -> None:
    assert check.memory("512M") == 512 * 1024**2
    assert check.memory("50%") == check.Share(0.5)
    assert isinstance(check.memory("50%"), check.Share)
    assert refusal(check.memory, "150%").startswith('"150%" is not a percentage')
    assert refusal(check.memory, 0) == "0 is out of range; write 1MiB to 1048576TiB"


def test_what_is_to_stay_free_is_a_size_or_less_than_all_of_the_disk() -> None:
    assert check.reserve("10GiB") == Reserve(bytes=10 * 1024**3)
    assert check.reserve(0) == Reserve()
    assert check.reserve(" 10 % ") == Reserve(share=0.1)
    assert refusal(check.reserve, "100%") == (
        '"100%" of the file system leaves nothing to write to; write less, such as "10%"'
    )
    assert refusal(check.reserve, "0%").startswith('"0%" is not a percentage')
    assert refusal(check.reserve, "lots").startswith('"lots" is not a size')


@pytest.mark.parametrize("value", [30, "*/5", "1-5", "mon-fri", "1,15", " 0 "])
def test_a_cron_field_is_one_word(value: str | int) -> None:
    assert check.cron_field(value) == str(value).strip()


@pytest.mark.parametrize("value", ["", "1 2", "* *", "5;6", "x" * 201, "\n"])
def test_more_than_a_word_is_no_cron_field(value: str) -> None:
    assert "is not a cron field; write one such as 30" in refusal(check.cron_field, value)


@given(st.text(max_size=70))
def test_any_text_is_a_value_or_is_refused_in_one_line(text: str) -> None:
    for parse in (
        check.service_name, check.server, check.account, check.stop_signal, check.absolute_path, check.path,
        check.secret_name, check.variable_name, check.interface, check.port_set, check.script, check.window,
        check.wording_pattern, check.cron_field, check.calendar_text,
        check.memory, check.reserve,
    ):  # fmt: skip
        try:
            parse(text)
        except UsageError as error:
            assert str(error).isprintable()
