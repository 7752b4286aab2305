"""What is expected, who is told, and the service that both make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.declaration.model import Declaration, Declared, ExpectedPorts, Notify, Watch
from agent.declaration.show import effective, render
from agent.errors import DeclarationError
from agent.supervisor.plan import plan

Read = Callable[..., Declaration]

SERVICES = """
[service.lan]
kind = "scan"
targets = ["10.0.0.0/24"]
every = "1d"
[service.edge]
kind = "capture"
interfaces = ["lo"]
enabled = false
[service.api]
kind = "command"
command = ["/srv/app/api"]
user = "api"
listens = "8000,udp/53"
"""
EXPECT = """
[expect.web]
hosts = ["10.0.0.10", "10.0.1.1-9", "NAS"]
open = ["tcp/22", "udp/53,8000-8003", { port = 443, service = "http*", version = "nginx 1.2[0-9]*" }]
closed = ["windows,23"]
others = false
severity = "err"
"""
NOTIFY = """
[notify.ops]
webhook = "https://hooks.example.org/agent?x=1"
secret = "hook"
kinds = ["drift_*"]
services = ["lan*", "watch"]
severity = "notice"
group = "1m"
"""


def watch_of(declaration: Declaration) -> Watch:
    watch = declaration.services["watch"]
    assert isinstance(watch, Watch)
    return watch


def problems(read: Read, text: str, files: Mapping[str, str] = {}) -> list[str]:
    with pytest.raises(DeclarationError) as error:
        read(text, files=files)
    return [str(problem).removeprefix("/k/env.toml:") for problem in error.value.problems]


def test_an_expectation_arrives_in_the_model(read: Read) -> None:
    expect = read(EXPECT).expects["web"]
    assert expect.hosts == ("10.0.0.10", "10.0.1.1-10.0.1.9", "nas")
    assert expect.open == (
        ExpectedPorts("tcp", 22, 22),
        ExpectedPorts("tcp", 8000, 8003),
        ExpectedPorts("udp", 53, 53),
        ExpectedPorts("tcp", 443, 443, "http*", "nginx 1.2[0-9]*"),
    )
    assert expect.closed[:2] == (ExpectedPorts("tcp", 23, 23), ExpectedPorts("tcp", 88, 88))
    assert (expect.others, expect.severity) == (False, "err")


def test_a_notification_arrives_in_the_model(read: Read) -> None:
    assert read(NOTIFY).notifies["ops"] == Notify(
        name="ops",
        webhook="https://hooks.example.org/agent?x=1",
        secret="hook",
        kinds=("drift_*",),
        services=("lan*", "watch"),
        severity="notice",
        group=60.0,
    )
    assert read('[notify.x]\nemail = "root"').notifies["x"] == Notify(name="x", email="root")
    assert read('[notify.x]\ncommand = ["/bin/x", "y"]').notifies["x"].command == ("/bin/x", "y")


def test_whoever_names_kinds_and_no_severity_is_told_of_all_of_them(read: Read) -> None:
    told = read('[notify.a]\nemail = "root"\nkinds = ["port_opened"]\n[notify.b]\nemail = "root"\n').notifies
    assert (told["a"].severity, told["b"].severity) == ("info", "warning")


def test_the_watch_is_there_when_something_is_expected_or_somebody_told(read: Read) -> None:
    assert "watch" not in read(SERVICES).services
    for text in (EXPECT, NOTIFY):
        watch = watch_of(read(SERVICES + text))
        assert (watch.kind, watch.ready, watch.restart) == ("watch", "notify", "always")
        assert watch.heartbeat is not None


def test_the_watch_knows_what_it_is_to_hold_against_what(read: Read) -> None:
    declaration = read(SERVICES + EXPECT + NOTIFY)
    watch = watch_of(declaration)
    assert watch.expects == tuple(declaration.expects.values())
    assert watch.notifies == tuple(declaration.notifies.values())
    assert watch.secrets == ("hook",)
    assert watch.declared == (
        Declared("lan", "scan", job=True, site="host"),
        Declared("edge", "capture", enabled=False),
        Declared("api", "command", listens="8000,udp/53"),
    )
    assert msgspec.json.decode(msgspec.json.encode(watch), type=Watch) == watch


def test_nobody_declares_a_watch_and_its_name_is_taken_where_there_is_one(read: Read) -> None:
    command = '[service.watch]\nkind = "command"\ncommand = ["/bin/x"]\n'
    assert read(command).services["watch"].kind == "command"
    assert problems(read, command + EXPECT) == [
        "1: service.watch: the name watch is that of the service which [expect] and [notify] start; choose another"
    ]
    assert problems(read, EXPECT, {"projects/web.toml": command}) == [
        "/k/projects/web.toml:1: service.watch: the name watch is that of the service which [expect] and [notify] "
        "start; choose another"
    ]
    assert problems(read, '[service.x]\nkind = "watch"') == [
        '2: service.x.kind: "watch" is not one of capture, scan, command'
    ]


def test_an_expectation_may_be_a_projects_and_is_declared_once(read: Read) -> None:
    declaration = read(NOTIFY, files={"projects/shop.toml": EXPECT})
    assert declaration.expects["web"].project == "shop"
    assert problems(read, EXPECT, {"projects/shop.toml": EXPECT}) == [
        "/k/projects/shop.toml:2: expect.web: declared before, at /k/env.toml:2; an expectation is declared once"
    ]


def test_a_change_of_what_is_expected_restarts_the_watch_alone(read: Read) -> None:
    before = read(SERVICES + EXPECT + NOTIFY).services
    after = read(SERVICES + EXPECT.replace('"10.0.0.10", ', "") + NOTIFY).services
    assert {action.name: (action.verb, action.because) for action in plan(after, before)} == {
        "api": ("keep", ()),
        "edge": ("keep", ()),
        "lan": ("keep", ()),
        "watch": ("restart", ("expects",)),
    }
    without = read(SERVICES).services
    assert [action.verb for action in plan(without, before) if action.name == "watch"] == ["stop"]


def test_saying_where_a_command_listens_does_not_restart_it(read: Read) -> None:
    before, after = (read(SERVICES.replace("udp/53", port)).services for port in ("udp/53", "udp/54"))
    assert [(action.verb, action.because) for action in plan(after, before) if action.name == "api"] == [
        ("update", ("listens",))
    ]


def test_what_is_shown_reads_back_and_says_from_which_project(read: Read) -> None:
    declaration = read(SERVICES + NOTIFY + "[ports]\nshop = 9000\n", files={"projects/shop.toml": EXPECT})
    text = render(declaration)
    assert "watch" not in effective(declaration)["service"]
    assert "# from projects/shop.toml\n[expect.web]" in text
    again = read(text)
    assert msgspec.structs.replace(again.expects["web"], project="shop") == declaration.expects["web"]
    assert (again.notifies, again.ports, again.scanning) == (
        declaration.notifies,
        {"shop": "9000"},
        declaration.scanning,
    )


def test_a_secret_in_a_url_is_shown_nowhere(read: Read) -> None:
    text = '[notify.x]\nwebhook = "https://hooks.example.org/${HOOK_TOKEN}"\n'
    declaration = read(text, {"HOOK_TOKEN": "hunter2"})
    assert declaration.notifies["x"].webhook == "https://hooks.example.org/hunter2"
    assert "hunter2" not in render(declaration)
    with pytest.raises(DeclarationError) as error:
        read(text, {"HOOK_TOKEN": "hunter2 "})
    assert [str(problem) for problem in error.value.problems] == [
        '/k/env.toml:2: notify.x.webhook: "https://hooks.example.org/${HOOK_TOKEN}" is not a URL such as '
        '"https://hooks.example.org/agent" (http is for private addresses alone)'
    ]


def test_a_token_written_into_a_url_is_not_quoted(read: Read) -> None:
    with pytest.raises(DeclarationError) as error:
        read('[notify.x]\nwebhook = "http://hooks.example.org/T0/hunter2"\n')
    assert [str(problem) for problem in error.value.problems] == [
        "/k/env.toml:2: notify.x.webhook: would go out unencrypted; write https (http is for private addresses alone)"
    ]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 70_000) | st.floats(-1, 1) | st.text(max_size=8)
    | st.sampled_from(["10.0.0.1", "tcp/22", "web", "https://a", "root", "${X}"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["hosts", "open", "port", "others", "email", "kinds", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
SECTION = st.sampled_from(["scanning", "ports", "expect", "notify", "service"])


def toml(value: Any) -> Any:
    """Without what TOML has not."""
    if isinstance(value, dict):
        return {key: toml(item) for key, item in value.items() if item is not None}
    return [toml(item) for item in value if item is not None] if isinstance(value, list) else value


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(SECTION, ANY | st.dictionaries(st.sampled_from(["a", "watch", "b-c"]), ANY, max_size=2), max_size=3)
)
def test_whatever_stands_there_it_is_read_or_refused_in_lines(read: Read, document: dict[str, Any]) -> None:
    try:
        declaration = read(tomli_w.dumps(toml(document)))
    except DeclarationError as error:
        assert error.problems
        assert all(str(problem).isprintable() for problem in error.problems)
    else:
        assert read(render(declaration)).expects == declaration.expects


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("expect = 5", ["1: expect: 5 is not a table; write [expect.NAME]"]),
        ("expect.x = 5", ["1: expect.x: 5 is not a table; write [expect.x]"]),
        ("[expect.a-b]\nhosts = ['10.0.0.1']\nothers = true", ["1: expect.a-b: a name holds no dash; use an"]),
        ("[expect.x]\nopen = [22]", ['1: expect.x: hosts is missing; write hosts = ["10.20.0.10"]']),
        ("[expect.x]\nhosts = []\nothers = true", ["2: expect.x.hosts: an empty list is not a list of addresses"]),
        ("[expect.x]\nhosts = ['file:/x']\nothers = true", ['2: expect.x.hosts: "file:/x" is no address, network']),
        ("[expect.x]\nhosts = ['10.0.0.1']", ['1: expect.x: expects nothing; write open = ["tcp/22"]']),
        (
            "[expect.x]\nhosts = ['10.0.0.1']\nopen = [22]\nclosed = ['1-30']",
            ["4: expect.x.closed: tcp/22 is to be open, and closed; keep one of them"],
        ),
        (
            "[expect.x]\nhosts = ['10.0.0.1']\nopen = ['top-10', 'tpc/22', { service = 'x' }]",
            [
                '3: expect.x.open: "top-10" holds top-N, which means something to the ports of a scan alone',
                '3: expect.x.open: "tpc/22" is not a port; write ports and ranges, such as "1-1024,5432,udp/53"',
                '3: expect.x.open: port is missing; write { port = "tcp/443", service = "http*" }',
            ],
        ),
        (
            "[expect.x]\nhosts = ['10.0.0.1']\nopen = [{ port = 22, servise = 'x' }]",
            ["3: expect.x.open.servise: unknown key; did you mean service?"],
        ),
        (
            "[expect.x]\nhosts = ['10.0.0.1']\nothers = false\nseverity = 'bad'",
            ['4: expect.x.severity: "bad" is not one of info, notice, warning, err'],
        ),
        ("[notify.x]", ["1: notify.x: says nobody to tell; write one of webhook, email and command"]),
        (
            "[notify.x]\nemail = 'root'\ncommand = ['/bin/x']",
            ["3: notify.x.command: email and command are different ways to tell; keep one, or declare another"],
        ),
        (
            "[notify.x]\nemail = 'root'\nsecret = 'hook'",
            ["3: notify.x.secret: signs what goes to a webhook, and this is none; leave it out"],
        ),
        (
            "[notify.x]\nwebhook = 'https://a'\nsecret = 'missing'",
            ["3: notify.x.secret: /k/secrets/missing does not exist"],
        ),
        ("[notify.x]\nwebhoook = 'https://a'", ["2: notify.x.webhoook: unknown key; did you mean webhook?"]),
        ("[notify.x]\nemail = 'root'\nkinds = ['Drift']", ['3: notify.x.kinds: "Drift" is not a kind of event']),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_these_words(read: Read, text: str, messages: list[str]) -> None:
    found = problems(read, text)
    assert [text[: len(message)] for text, message in zip(found, messages, strict=True)] == messages
