"""Whole declarations: their files, every mistake at once, and ten thousand ways to damage one."""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.declaration.load import MOST_SPENT, load
from agent.declaration.model import AgentSettings, Command, Declaration
from agent.declaration.sources import Disk, Sources, Unreadable
from agent.errors import DeclarationError
from agent.paths import Paths

Read = Callable[..., Declaration]

COMMAND = 'kind = "command"\ncommand = ["/bin/x"]\n'

FULL = """\
[agent]
server = "hel1v5"
group = "ops"
scheduler = "systemd"
heartbeat = { interval = "5s" }

[service.edge_capture]
kind = "capture"
interfaces = ["eth0", "eth1"]
filter = "not port 22"
budget = "200GiB"
rotate = { size = "256MiB", every = "60s" }
snaplen = 262_144
promiscuous = true
ring = "64M"

[service.lan_scan]
kind = "scan"
targets = ["10.20.0.0/24", "fd00:20::/120"]
exclude = ["10.20.0.9"]
ports = "1-1024,5432,6379"
profile = "services"
rate = "${RATE:-2000}"
oncalendar = "Mon..Fri *-*-* 02:30"
timeout = "2h"

[service.api]
kind = "command"
command = ["/srv/app/api", "--port", "${API_PORT:-8000}", '''$$
''']
user = "api"
restart = "unless-stopped"
stop_signal = "SIGINT"
ready = "notify"
limits = { memory = "50%", cpus = 1.5, pids = 100 }
secrets = ["db_password"]
env_file = ["api.env"]
log.size = "1MiB"
log.keep = 2

[service.api.environment]
API_KEY = "${API_KEY}"
DEBUG = true
LEVEL = 3

[service.night]
kind = "command"
command = ["backup"]
minute = 30
hour = "2"
weekday = "mon-fri"
"""
ENVIRON = {"API_KEY": "hunter2", "RATE": "1000"}
FILES = {".env": "RATE=1\nAPI_PORT=9000", "api.env": "export FROM_FILE='yes'"}


def complaints(read: Read, text: str, files: Mapping[str, str] = {}) -> list[str]:
    with pytest.raises(DeclarationError) as error:
        read(text, {}, files)
    return str(error.value).split("\n")


def test_a_whole_declaration_is_read(read: Read) -> None:
    declaration = read(FULL, ENVIRON, FILES)
    assert list(declaration.services) == ["edge_capture", "lan_scan", "api", "night"]
    assert declaration.agent == AgentSettings("hel1v5", "ops", heartbeat_interval=5.0, scheduler="systemd")
    assert declaration.file == "/k/env.toml"
    api = declaration.services["api"]
    assert isinstance(api, Command)
    assert api.command == ("/srv/app/api", "--port", "9000", "$\n")
    assert api.environment == {"FROM_FILE": "yes", "API_KEY": "hunter2", "DEBUG": "true", "LEVEL": "3"}


def test_an_empty_declaration_declares_nothing(read: Read) -> None:
    declaration = read("")
    assert (declaration.agent.server, declaration.services) == ("host", {})


def test_every_mistake_is_reported_at_once_with_its_line(read: Read) -> None:
    text = """\
[agent]
sever = "x"

[expect.web]
open = []

[service.edge-capture]
kind = "capture"
interfaces = ["eth0"]
restrat = "no"
rate = 5

[service.api]
kind = "command"
command = ["/bin/x"]
filter = "not port 22"
stop_timeout = "soon"
user = "${API_USER}"
log = { sise = "1M" }
environment.B = "5$"

[service.scan]
kind = "scna"
targets = ["10.0.0.1"]
ports = "http"

[service.nothing]
ports = "80"
"""
    assert complaints(read, text) == [
        "/k/env.toml:2: agent.sever: unknown key; did you mean server?",
        '/k/env.toml:4: expect.web: hosts is missing; write hosts = ["10.20.0.10"]',
        "/k/env.toml:7: service.edge-capture: a name holds no dash; use an underscore: edge_capture",
        "/k/env.toml:10: service.edge-capture.restrat: unknown key; did you mean restart?",
        "/k/env.toml:11: service.edge-capture.rate: rate belongs to kind scan, and this is a capture",
        "/k/env.toml:16: service.api.filter: filter belongs to kind capture, and this is a command",
        '/k/env.toml:17: service.api.stop_timeout: "soon" is not a duration; write a number with a unit, '
        'such as "30s", "1h30m" or "500ms"',
        "/k/env.toml:18: service.api.user: variable API_USER is not set; set it in .env, env_file or the agent's "
        "environment, or write ${API_USER:-default}",
        "/k/env.toml:19: service.api.log.sise: unknown key; did you mean size?",
        '/k/env.toml:20: service.api.environment.B: a lone $ in "5$"; write $$ for a dollar sign, '
        "or ${NAME}, ${NAME:-default} or ${NAME:?message}",
        '/k/env.toml:23: service.scan.kind: "scna" is not one of capture, scan, command; did you mean scan?',
        '/k/env.toml:25: service.scan.ports: "http" is neither a port nor a set of ports; there are containers, '
        "databases, files, industrial, mail, management, messaging, names, printing, remote, voip, web and windows, "
        "and [ports] declares more",
        '/k/env.toml:27: service.nothing: kind is missing; write kind = "scan"',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "/k/env.toml:1: not valid TOML: Expected '=' after a key in a key/value pair at the end of the file"),
        ("a = 1\nb = [1\n", "/k/env.toml:2: not valid TOML: Unclosed array at the end of the file"),
        ("\n[a\n", "/k/env.toml:2: not valid TOML: Expected ']' at the end of a table declaration (column 3)"),
        ("a = 1\na = 2\n", "/k/env.toml:2: not valid TOML: Cannot overwrite a value (column 6)"),
        ("\ufeffa = 1", "/k/env.toml:1: begins with a byte order mark, which TOML has not; save it as UTF-8 without"),
        ("\n\na = " + "9" * 5000, "/k/env.toml:3: a number of thousands of digits"),
        ("\na = " + "[" * 5000, "/k/env.toml:2: nested deeper than 16 levels; no key here needs more than four"),
        ("a." * 100_000 + "a = 1", "/k/env.toml:1: nested deeper than 16 levels; no key here needs more than four"),
        ("service = 5", "/k/env.toml:1: service: 5 is not a table; write [service.NAME]"),
        ("agent = []", "/k/env.toml:1: agent: an empty list is not a table; write [agent]"),
        ("service.x = 5", "/k/env.toml:1: service.x: 5 is not a table; write [service.x]"),
        ("[service.x]", '/k/env.toml:1: service.x: kind is missing; write kind = "capture", "scan" or "command"'),
        (f"[services.x]\n{COMMAND}", "/k/env.toml:1: services: unknown section; did you mean service?"),
        (
            '[agent]\ngruop = "x"\n',
            "/k/env.toml:2: agent.gruop: unknown key; did you mean group?",
        ),
        (
            "[agent]\nxyz = 1\n",
            "/k/env.toml:2: agent.xyz: unknown key; known are server, group, scheduler and heartbeat",
        ),
        (
            '[agent]\nheartbeat = { timeout = "1s" }',
            "/k/env.toml:2: agent.heartbeat.timeout: unknown key; "
            "how old tmp/agent.heartbeat may be is for those to say who watch it",
        ),
        (
            f'[service.x]\n{COMMAND}secrets = ["token", "missing"]',
            "/k/env.toml:4: service.x.secrets: /k/secrets/missing does not exist",
        ),
        (
            f"[service.agent]\n{COMMAND}",
            "/k/env.toml:1: service.agent: the name agent is the agent's own; choose another",
        ),
        (
            f'[service."a\\nb"]\n{COMMAND}',
            '/k/env.toml:1: service."a\\nb": a name begins with a letter a to z; letters, digits and underscores '
            "follow, 63 characters in all",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_is_told_in_these_words(read: Read, text: str, message: str) -> None:
    assert complaints(read, text) == [message]


@pytest.mark.parametrize(("kind", "needed"), [("capture", 'interfaces = ["lo"]'), ("scan", 'targets = ["10.0.0.1"]')])
def test_workers_of_our_own_cannot_be_given_capabilities(read: Read, kind: str, needed: str) -> None:
    assert complaints(read, f'[service.x]\nkind = "{kind}"\n{needed}\ncapabilities = []') == [
        f"/k/env.toml:4: service.x.capabilities: a {kind} is given CAP_NET_RAW where the agent holds it, "
        "and needs no other; leave this out"
    ]


def test_variables_come_from_env_then_env_file_then_the_environment(read: Read) -> None:
    text = f'[service.x]\n{COMMAND}env_file = "x.env"\nenvironment = {{ V = "${{A}} ${{B}} ${{C}}" }}'
    files = {".env": "A=env\nB=env\nC=env", "x.env": "B=file\nC=file"}
    declaration = read(text, {"C": "environ"}, files)
    assert declaration.services["x"].environment == {"B": "file", "C": "file", "V": "env file environ"}


def test_env_files_override_each_other_in_order_and_environment_overrides_them(read: Read) -> None:
    text = f'[service.x]\n{COMMAND}env_file = ["1.env", "${{SECOND}}"]\nenvironment = {{ C = "3" }}'
    files = {"1.env": "A=1\nB=1\nC=1", "2.env": "B=2\nC=2"}
    assert read(text, {"SECOND": "2.env"}, files).services["x"].environment == {"A": "1", "B": "2", "C": "3"}


def test_variables_of_one_service_are_not_those_of_another(read: Read) -> None:
    text = f'[service.x]\n{COMMAND}env_file = "x.env"\n[service.y]\n{COMMAND}user = "${{NAME}}"'
    assert complaints(read, text, files={"x.env": "NAME=x"}) == [
        "/k/env.toml:8: service.y.user: variable NAME is not set; set it in .env, env_file or the agent's environment, "
        "or write ${NAME:-default}"
    ]


def test_mistakes_in_variable_files_are_told_where_they_are(read: Read) -> None:
    text = f'[service.x]\n{COMMAND}env_file = [\n"x.env",\n"none.env"]'
    assert complaints(read, text, files={".env": "\nwords", "x.env": "A='\nSERVICE_NAME=x"}) == [
        "/k/.env:2: not an assignment; write NAME=value",
        "/k/env.toml:5: service.x.env_file: SERVICE_NAME in /k/x.env is set by the agent itself; choose another name",
        "/k/env.toml:6: service.x.env_file: /k/none.env does not exist",
        "/k/x.env:1: service.x.env_file: the ' that opens the value is not closed on this line",
    ]


def test_projects_declare_services_on_top(read: Read) -> None:
    declaration = read(f"[service.a]\n{COMMAND}", {}, {"projects/web.toml": f"[service.b]\n{COMMAND}"})
    assert {name: service.project for name, service in declaration.services.items()} == {"a": None, "b": "web"}


def test_a_service_is_declared_once_and_both_places_are_told(read: Read) -> None:
    files = {"projects/web.toml": f"\n[service.a]\n{COMMAND}"}
    assert complaints(read, f"[service.a]\n{COMMAND}", files=files) == [
        "/k/projects/web.toml:2: service.a: declared before, at /k/env.toml:1; a service is declared once"
    ]


def test_a_project_declares_services_only_and_has_the_name_of_one(read: Read) -> None:
    files = {
        "projects/web.toml": f"[agent]\nserver = 'x'\n[servce.a]\n{COMMAND}",
        "projects/My-App.toml": "",
        "projects/x\n.toml": "",
    }
    assert complaints(read, "", files=files) == [
        "/k/projects/My-App.toml: the file's name is the project's: a name holds no dash; use an underscore: my_app",
        "/k/projects/web.toml:1: agent: a project declares services and what is expected; move this to env.toml",
        "/k/projects/web.toml:3: servce: unknown section; did you mean service?",
        "/k/projects/x\\n.toml: the file's name is the project's: a name begins with a letter a to z; "
        "letters, digits and underscores follow, 63 characters in all",
    ]


def test_a_broken_project_does_not_hide_the_mistakes_of_the_others(read: Read) -> None:
    files = {"projects/a.toml": "x", "projects/b.toml": "[service.x]"}
    assert [line.split(": ")[0] for line in complaints(read, "service = 1", files=files)] == [
        "/k/env.toml:1",
        "/k/projects/a.toml:1",
        "/k/projects/b.toml:1",
    ]


def test_a_wrong_name_of_a_section_does_not_hide_what_is_wrong_in_it(read: Read) -> None:
    assert complaints(read, '[services.x]\nkind = "comand"') == [
        "/k/env.toml:1: services: unknown section; did you mean service?",
        '/k/env.toml:2: services.x.kind: "comand" is not one of capture, scan, command; did you mean command?',
    ]


def test_what_is_wrong_with_an_env_file_is_told_once_whoever_uses_it(read: Read) -> None:
    text = "".join(f'[service.{name}]\n{COMMAND}env_file = "x.env"\n' for name in "ab")
    assert complaints(read, text, {"x.env": "A='\nSERVICE_NAME=x"}) == [
        "/k/env.toml:4: service.a.env_file: SERVICE_NAME in /k/x.env is set by the agent itself; choose another name",
        "/k/x.env:1: service.a.env_file: the ' that opens the value is not closed on this line",
    ]


def test_a_variable_whose_assignment_is_wrong_is_not_said_to_be_unset_too(read: Read) -> None:
    text = f'[service.a]\n{COMMAND}env_file = "x.env"\nuser = "${{A}}${{B}}"\ngroup = "${{C}}"'
    assert complaints(read, text, {".env": "A='", "x.env": 'B="'}) == [
        "/k/.env:1: the ' that opens the value is not closed on this line",
        "/k/env.toml:6: service.a.group: variable C is not set; set it in .env, env_file or the agent's environment, "
        "or write ${C:-default}",
        '/k/x.env:1: service.a.env_file: the " that opens the value is not closed on this line',
    ]


def test_an_unusable_item_does_not_hide_the_files_of_the_others(read: Read) -> None:
    text = f'[service.a]\n{COMMAND}env_file = [5, "none.env"]\nsecrets = ["a.b", "missing"]'
    assert complaints(read, text) == [
        "/k/env.toml:4: service.a.env_file: /k/none.env does not exist",
        "/k/env.toml:4: service.a.env_file: 5 is not the path of a file",
        '/k/env.toml:5: service.a.secrets: "a.b" is not a secret\'s name; use letters, digits and _, and no path',
        "/k/env.toml:5: service.a.secrets: /k/secrets/missing does not exist",
    ]


def test_calendars_that_are_over_cannot_cost_more_than_a_few_seconds(read: Read) -> None:
    text = "".join(f'[service.s{n}]\n{COMMAND}oncalendar = "*-02-30 0:{n // 60}:{n % 60}"\n' for n in range(600))
    started = time.process_time()
    assert len(complaints(read, text)) == MOST_SPENT
    assert time.process_time() - started < 10


def on_disk(directory: Path) -> list[str]:
    with pytest.raises(DeclarationError) as error:
        load(Paths.of(directory), {})
    return [line.replace(str(directory), "") for line in str(error.value).split("\n")]


def test_files_are_found_on_the_disk(tmp_path: Path) -> None:
    key = tmp_path / "key"
    (key / "projects").mkdir(parents=True)
    (key / "secrets").mkdir()
    (key / "secrets" / "token").touch(mode=0o600)
    (key / "env.toml").write_text(f'[service.a]\n{COMMAND}secrets = ["token"]\nuser = "${{NAME}}"\nenv_file = "a.env"')
    (key / ".env").write_text("NAME=nobody")
    (key / "a.env").write_text("A=1")
    (key / "projects" / "web.toml").write_text(f"[service.b]\n{COMMAND}")
    declaration = load(Paths.of(tmp_path), {})
    assert (declaration.services["a"].user, declaration.services["a"].environment) == ("nobody", {"A": "1"})
    assert declaration.services["b"].project == "web"
    assert declaration.agent.server == os.uname().nodename


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert on_disk(tmp_path) == ["/key/env.toml: does not exist; `agentctl --prefix  init` writes a first one"]
    (key / "env.toml").mkdir(parents=True)
    (key / ".env").mkdir()
    (key / "projects").touch()
    assert on_disk(tmp_path) == [
        "/key/.env: is a directory",
        "/key/env.toml: is a directory",
        "/key/projects: is not a directory",
    ]


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key" / "secrets").mkdir(parents=True)
    (tmp_path / "key" / "secrets" / "token").touch(mode=0o644)
    (tmp_path / "key" / "env.toml").write_text(f'[service.a]\n{COMMAND}secrets = ["token"]')
    assert on_disk(tmp_path) == [
        "/key/env.toml:4: service.a.secrets: /key/secrets/token is open to others (mode 0644); chmod 0600 it"
    ]


def test_a_large_declaration_is_read_in_reasonable_time(read: Read) -> None:
    text = "".join(f"[service.s{number}]\n{COMMAND}" for number in range(500))
    started = time.process_time()
    assert len(read(text).services) == 500
    assert time.process_time() - started < 5


VALUES = (
    "true", "0", "-1", "1e400", "nan", "0x7fffffffffffffff", "99999999999999999999", "1979-05-27", "07:32:00", "[]",
    "{}", '""', '"${"', '"${NONE}"', '"${API_KEY:-${A}}"', '"$"', '"\\u0000"', '"\\U0010ffff"', "'\\'", '"50%"',
    '["a", 1, [true], {x = 1}]', "{ a = { b = [ { c = 1 } ] } }", "[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]",
    '"""\n\n"""', '"~"', '"*-*-31/7 99:99"', '"::/0"', '"0.0.0.0/0"', "9" * 5000, '"10s"',
)  # fmt: skip
SNIPPETS = (
    "[", "]", "{", "}", '"', "'", '"""', "=", ".", ",", "\n", "#", "\\", "$", "${", "}", "\0", "\ufeff", "\u2028", "-",
    "[service.x]\n", "[agent]\n", "[[service.api]]\n", 'kind = "scan"\n', "a.b.c.d = 1\n", "every = 5\n", "\ud7ff",
)  # fmt: skip
WORD = re.compile(r"\w+|[^\w\s]")


def mutate(text: str, what: int, where: int, other: int) -> str:
    """One small damage: bytes, words, lines or values."""
    lines = text.split("\n")
    line = where % len(lines)
    match what % 7:
        case 0:
            data = bytearray(text.encode())
            if data:
                data[where % len(data)] ^= 1 << other % 8
            return data.decode(errors="replace")
        case 1:
            place = where % (len(text) + 1)
            return text[:place] + SNIPPETS[other % len(SNIPPETS)] + text[place:]
        case 2:
            place = where % (len(text) + 1)
            return text[:place] + text[place + other % 20 :]
        case 3:
            words = list(WORD.finditer(text))
            if len(words) < 2:
                return text
            one, two = sorted((words[where % len(words)], words[other % len(words)]), key=lambda word: word.start())
            between = text[one.end() : max(two.start(), one.end())]
            return text[: one.start()] + two[0] + between + one[0] + text[two.end() :]
        case 4:
            key, equals, _ = lines[line].partition("=")
            if equals:
                lines[line] = f"{key}= {VALUES[other % len(VALUES)]}"
        case 5:
            lines.insert(other % (len(lines) + 1), lines[line])
        case 6:
            del lines[line]
    return "\n".join(lines)


STEP = struct.Struct("<BHH")
LINE = re.compile(r"/k/(env\.toml|\.env|api\.env)(:[1-9][0-9]*)?: \S.*")


@pytest.mark.timeout(300)
@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=STEP.size, max_size=3 * STEP.size))
def test_ten_thousand_damaged_declarations_are_read_or_refused_line_by_line(read: Read, damage: bytes) -> None:
    text = FULL
    for step in STEP.iter_unpack(damage[: len(damage) // STEP.size * STEP.size]):
        text = mutate(text, *step)
    try:
        assert isinstance(read(text, ENVIRON, FILES), Declaration)
    except DeclarationError as error:
        assert error.problems
        for problem in error.problems:
            assert LINE.fullmatch(str(problem)) and str(problem).isprintable(), str(problem)
            assert problem.line <= text.count("\n") + 1
            assert "hunter2" not in str(problem)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_every_key_takes_any_value_or_refuses_it(read: Read, value: str) -> None:
    lines = FULL.split("\n")
    for number, line in enumerate(lines):
        key, equals, _ = line.partition("=")
        if equals:
            text = "\n".join([*lines[:number], f"{key}= {value}", *lines[number + 1 :]])
            try:
                read(text, ENVIRON, FILES)
            except DeclarationError as error:
                assert all(LINE.fullmatch(str(problem)) for problem in error.problems)


# -- a declaration that is a credential -------------------------------------------------------------------------------


class Withheld(Disk):
    """A disk whose declaration only root can read. Root runs the tests, and so it has to be played."""

    def __init__(self, text: str = "may not be read by user agent", *, withheld: bool = True) -> None:
        self.refusal = Unreadable(text, withheld=withheld)

    def read(self, path: Path) -> str:
        if path.name == "env.toml" and path.parent.name == "key":
            raise self.refusal
        return super().read(path)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Nothing is declared; a directory of credentials is there, and empty."""
    (tmp_path / "given").mkdir()
    (tmp_path / "srv" / "key").mkdir(parents=True)
    return Paths.of(tmp_path / "srv")._replace(credentials=tmp_path / "given")


def give(paths: Paths, text: str, name: str = "env.toml") -> Path:
    assert paths.credentials
    (paths.credentials / name).write_text(text)
    return paths.credentials / name


def load_from(paths: Paths, sources: Sources | None = None) -> Declaration:
    return load(paths, {}, sources)


def mistakes(paths: Paths, sources: Sources | None = None) -> str:
    with pytest.raises(DeclarationError) as error:
        load_from(paths, sources)
    return str(error.value)


def test_a_credential_stands_in_for_a_declaration_that_is_missing_or_withheld(paths: Paths) -> None:
    given = give(paths, "[service.x]\n" + COMMAND)
    for sources in (None, Withheld()):
        declaration = load_from(paths, sources)
        assert (declaration.file, [*declaration.services]) == (str(given), ["x"])


def test_a_declaration_that_can_be_read_goes_before_a_credential(paths: Paths) -> None:
    give(paths, "nonsense")
    paths.declaration.write_text("")
    assert load_from(paths).file == str(paths.declaration)


def test_a_declaration_that_is_broken_is_not_hidden_by_a_credential(paths: Paths) -> None:
    give(paths, "")
    sources = Withheld("is larger than 1048576 bytes", withheld=False)
    assert mistakes(paths, sources) == f"{paths.declaration}: is larger than 1048576 bytes"


def test_the_name_of_the_declaration_is_that_of_the_credential(paths: Paths) -> None:
    given = give(paths, "", "other.toml")
    give(paths, "nonsense")
    assert load_from(paths._replace(declaration=paths.key / "other.toml")).file == str(given)


def test_mistakes_in_a_credential_are_told_with_its_path(paths: Paths) -> None:
    given = give(paths, "[service.x]\ncolour = 3\n" + COMMAND)
    assert mistakes(paths).startswith(f"{given}:2: service.x.colour: unknown key")
    given.write_bytes(b"\xff")
    assert mistakes(paths) == f"{given}: is not UTF-8: byte 0xff on line 1; save it as UTF-8; it is a credential"


def test_what_goes_with_a_credential_stays_where_the_declaration_would_be(paths: Paths) -> None:
    give(paths, '[service.x]\nkind = "command"\ncommand = ["${PROGRAM}"]\n')
    (paths.key / ".env").write_text("PROGRAM=/bin/y\n")
    paths.projects.mkdir()
    (paths.projects / "p.toml").write_text("[service.z]\n" + COMMAND)
    declaration = load_from(paths)
    found = declaration.services["x"]
    assert isinstance(found, Command)
    assert found.command == ("/bin/y",)
    assert declaration.services["z"].project == "p"


def test_what_to_do_about_a_declaration_that_is_withheld(paths: Paths) -> None:
    why = "may not be read by user agent; or hand it over: LoadCredential=env.toml:"
    for told in (paths, paths._replace(credentials=None)):
        assert mistakes(told, Withheld()) == f"{paths.declaration}: {why}{paths.declaration}"


def test_init_is_offered_only_where_it_writes_the_file_that_is_missing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = f"{paths.declaration}: does not exist"
    assert mistakes(paths) == f"{missing}; `agentctl --prefix {paths.prefix} init` writes a first one"
    monkeypatch.setenv("PREFIX", str(paths.prefix))
    assert mistakes(paths) == f"{missing}; `agentctl init` writes a first one"
    other = paths._replace(declaration=paths.prefix / "other.toml")
    assert mistakes(other) == f"{other.declaration}: does not exist"


def test_a_secret_may_be_a_credential(paths: Paths) -> None:
    paths.declaration.write_text('[service.x]\nsecrets = ["token"]\n' + COMMAND)
    assert mistakes(paths) == (
        f"{paths.declaration}:2: service.x.secrets: {paths.secrets}/token does not exist, "
        "nor is there a credential token"
    )
    give(paths, "", "token").chmod(0o440)
    assert load_from(paths).services["x"].secrets == ("token",)
    # Open to others, a file of ours is refused all the same.
    paths.secrets.mkdir()
    (paths.secrets / "token").touch(mode=0o644)
    mistaken = mistakes(paths._replace(credentials=None))
    assert "token is open to others (mode 0644); chmod 0600 it" in mistaken
