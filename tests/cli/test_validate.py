"""``validate``: everything that is wrong, at once, and nothing done about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.cli import checks
from agent.cli.validate import judged
from agent.errors import DeclarationError
from agent.linux.users import resolve_user
from agent.paths import Paths
from tests.cli.harness import Agentctl

RIGHT = """\
[service.api]
kind = "command"
command = ["sleep", "${SECONDS_TO_SLEEP:-60}"]

[service.nightly]
kind = "command"
command = ["true"]
oncalendar = "daily"
enabled = false
"""

WRONG = """\
[service.api]
kind = "command"
comand = ["sleep", "60"]
restart = "never"
"""


@pytest.fixture
def declaration(prefix: Path) -> Path:
    (prefix / "key").mkdir(parents=True)
    return prefix / "key" / "env.toml"


def test_a_right_one_is_one_line_with_what_it_declares(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(RIGHT)
    done = agentctl("validate")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{declaration}: valid: 2 services: 2 command; 1 on a timer, 1 disabled\n"


def test_all_mistakes_are_shown_with_their_places(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(WRONG)
    done = agentctl("validate")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert any(line.startswith(f"{declaration}:3: service.api.comand: ") and "command" in line for line in lines)
    assert any(line.startswith(f"{declaration}:4: service.api.restart: ") for line in lines)


CAPTURE = """\
[service.edge]
kind = "capture"
interfaces = ["eth*"]
filter = "tcp and prot 80"

[service.air]
kind = "capture"
interfaces = ["mon0"]
filter = "wlan type mgt"
"""


def test_a_filter_that_libpcap_refuses_is_a_mistake_with_its_place(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(CAPTURE)
    done = agentctl("validate")
    assert (done.returncode, done.stdout) == (1, "")
    said = 'filter "tcp and prot 80": syntax error at "prot" (column 9)'
    assert done.stderr == f"{declaration}:4: service.edge.filter: {said}\n"
    problems = json.loads(agentctl("--json", "validate").stdout)["problems"]
    assert problems == [{"file": str(declaration), "line": 4, "where": "service.edge.filter", "text": said}]


def test_a_filter_that_depends_on_the_interface_is_a_warning(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(CAPTURE.replace("prot 80", "port 80"))
    done = agentctl("validate")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert done.stderr.startswith(f"warning: {declaration}:9: service.air.filter: ")


SCAN = """\
[service.lan]
kind = "scan"
targets = ["10.99.0.0/24", "10.99.1.0-255", "fd00:ec2::/118", "file:{}"]
"""


def test_what_a_scan_leaves_out_by_itself_is_told(agentctl: Agentctl, declaration: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    declaration.write_text(SCAN.format(hosts))
    hosts.write_text("10.99.2.0/30\n")
    done = agentctl("validate")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        "service.lan: 8 addresses are never scanned, and left out: 10.99.0.0 (the network address of 10.99.0.0/24),"
        " 10.99.0.255 (the broadcast address of 10.99.0.0/24),"
        " 10.99.1.0 (the network address of 10.99.1.0-10.99.1.255),"
        " 10.99.1.255 (the broadcast address of 10.99.1.0-10.99.1.255) and 4 more"
    ]
    told = json.loads(agentctl("validate", "--json").stdout)["left_out"]["lan"]
    assert len(told) == 8
    assert told["10.99.2.3"] == "the broadcast address of 10.99.2.0/30"
    assert told["fd00:ec2::254"] == "the metadata service of a cloud"


def test_another_file_can_be_named(agentctl: Agentctl, tmp_path: Path, prefix: Path) -> None:
    (tmp_path / "other.toml").write_text(RIGHT)
    assert agentctl("validate", "other.toml").returncode == 0
    assert not prefix.exists()


def test_a_missing_one_is_a_mistake_of_the_user(agentctl: Agentctl, prefix: Path) -> None:
    done = agentctl("validate")
    assert done.returncode == 1
    assert str(prefix / "key" / "env.toml") in done.stderr and done.stderr.count("\n") == 1


def test_json(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(RIGHT)
    assert json.loads(agentctl("validate", "--json").stdout) == {
        "file": str(declaration),
        "valid": True,
        "services": 2,
        "problems": [],
        "left_out": {},
    }
    declaration.write_text(WRONG)
    done = agentctl("validate", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr, answer["valid"]) == (1, "", False)
    assert {(problem["line"], problem["where"]) for problem in answer["problems"]} >= {
        (3, "service.api.comand"),
        (4, "service.api.restart"),
    }
    assert all(problem.keys() == {"file", "line", "where", "text"} for problem in answer["problems"])


def test_the_file_of_the_example_is_for_the_agent_to_read(agentctl: Agentctl) -> None:
    assert "install -o root -g agent -m 640 env.toml /srv/key/\n" in agentctl("validate", "--help").stdout


# -- root, who sees more than the agent --------------------------------------------------------------------------------

SECRET = """\
[service.api]
kind = "command"
command = ["true"]
secrets = ["token"]
"""


@pytest.fixture
def keys(theirs: Path) -> Path:
    """The ``key`` of a prefix of nobody's, with a declaration that names a secret; all of it is for nobody to read."""
    (theirs / "key" / "secrets").mkdir()
    (theirs / "key" / "env.toml").write_text(SECRET)
    (theirs / "key" / "secrets" / "token").touch(mode=0o600)
    for path in theirs.glob("key/**/*"):
        os.chown(path, 65534, 65534)
    return theirs / "key"


def test_what_the_agent_may_not_read_is_a_mistake_though_root_may(agentctl: Agentctl, keys: Path) -> None:
    validate = ("validate", "--prefix", str(keys.parent))
    assert agentctl(*validate).returncode == 0
    token = keys / "secrets" / "token"
    os.chown(token, 0, 0)
    done = agentctl(*validate)
    assert (done.returncode, done.stdout) == (1, "")
    why = f"{token} may not be read by user nobody: chown nobody {token}, or make it a credential"
    assert done.stderr == f"{keys}/env.toml:4: service.api.secrets: {why}\n"
    assert json.loads(agentctl(*validate, "--json").stdout)["problems"][0]["text"] == why
    assert agentctl(*validate, str(keys / "env.toml")).returncode == 1
    elsewhere = keys.parent / "env.toml"
    elsewhere.write_text(RIGHT)
    elsewhere.chmod(0o600)
    done = agentctl(*validate, str(elsewhere))
    assert (done.returncode, done.stderr) == (0, ""), "another file is not for the agent yet"


def test_a_declaration_that_is_roots_alone_is_worth_a_warning_unless_it_is_a_credential(
    agentctl: Agentctl, keys: Path, tmp_path: Path
) -> None:
    """Nobody can tell what an agent that does not run will be given."""
    file = keys / "env.toml"
    os.chown(file, 0, 0)
    file.chmod(0o600)
    done = agentctl("validate", "--prefix", str(keys.parent))
    assert (done.returncode, done.stdout) == (0, f"{file}: valid: 1 service: 1 command\n")
    assert done.stderr.startswith(f"warning: {file}: may not be read by user nobody: ")
    assert done.stderr.endswith(f"; or hand it over: LoadCredential=env.toml:{file}\n") and done.stderr.count("\n") == 1
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "env.toml").write_text(WRONG)
    done = agentctl("validate", "--prefix", str(keys.parent), CREDENTIALS_DIRECTORY=str(tmp_path / "given"))
    assert (done.returncode, done.stderr) == (0, ""), "what is judged is the file, which is newer"
    os.chown(keys / "secrets" / "token", 0, 0)
    given = ("validate", "--prefix", str(keys.parent))
    assert agentctl(*given, CREDENTIALS_DIRECTORY=str(tmp_path / "given")).returncode == 1
    (tmp_path / "given" / "token").touch()
    assert agentctl(*given, CREDENTIALS_DIRECTORY=str(tmp_path / "given")).returncode == 0, "root's, and handed over"


def test_an_agent_that_runs_and_was_not_given_it_would_refuse_it(
    theirs: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "running", lambda paths: os.getpid())
    monkeypatch.setattr(checks, "whose", lambda paths, status: resolve_user("nobody", None))
    assert judged(Paths.of(theirs))[1] == []
    (keys / "env.toml").chmod(0o600)
    os.chown(keys / "env.toml", 0, 0)
    with pytest.raises(DeclarationError) as refused:
        judged(Paths.of(theirs))
    assert [problem.text[:32] for problem in refused.value.problems] == ["may not be read by user nobody: "[:32]]
    monkeypatch.setattr(checks, "given_to", lambda pid: keys)
    assert judged(Paths.of(theirs))[1] == []
