"""``run`` and ``run-once``: a fresh process in place of the command line, judged by its exit code."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.invitation import invitation, invocation
from agent.paths import Paths
from tests.cli.harness import Agentctl
from tests.harness import commanded, wait_until

JOBS = """\
[service.good]
kind = "command"
command = ["/bin/sh", "-c", "echo out; exit 0"]
oncalendar = "yearly"

[service.misconfigured]
kind = "command"
command = ["/bin/sh", "-c", "exit 1"]
oncalendar = "yearly"

[service.bad]
kind = "command"
command = ["/bin/sh", "-c", "echo why >&2; exit 7"]
oncalendar = "yearly"
"""


@pytest.fixture
def declaration(prefix: Path) -> Path:
    (prefix / "key").mkdir(parents=True)
    return prefix / "key" / "env.toml"


def lines_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """What it says on stderr, up to the first line that holds ``text``."""
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"it ended before it said {text!r}: {lines}")


def test_the_agent_takes_the_place_of_the_command_line(agentctl: Agentctl, declaration: Path, prefix: Path) -> None:
    declaration.write_text("")
    with agentctl.start("run", "--prefix", str(prefix)) as process:
        hint = lines_until(process, "in another terminal: ")[-1]
        assert f"PREFIX={prefix} " in hint and hint.endswith(" status\n")
        assert (prefix / "run" / "agent.pid").read_text() == f"{process.pid}\n"
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
        assert arguments[1:6] == ["-P", "-m", "agent", "daemon", "plain"]
        assert agentctl("status").returncode == 0
        second = agentctl("run")
        assert second.returncode == 2
        assert f"process {process.pid} holds it" in second.stderr and second.stderr.count("\n") == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert agentctl("status").returncode == 2


def test_where_nothing_is_to_be_parsed_the_command_line_is_the_agent(
    agentctl: Agentctl, declaration: Path, prefix: Path
) -> None:
    declaration.write_text("")
    with agentctl.start("run") as process:
        hint = lines_until(process, "in another terminal: ")[-1]
        assert f"PREFIX={prefix} " in hint and hint.endswith(" status\n")
        assert (prefix / "run" / "agent.pid").read_text() == f"{process.pid}\n"
        assert Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")[-2] == "run"
        assert agentctl("status").returncode == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_under_a_service_manager_nobody_is_told_what_to_type(
    agentctl: Agentctl, declaration: Path, tmp_path: Path
) -> None:
    declaration.write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with agentctl.start("run", NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            while b"READY=1" not in manager.recv(4096):
                pass
            process.terminate()
            assert process.wait(10) == 0
            assert process.stderr and "in another terminal" not in process.stderr.read()


def test_a_wrong_declaration_exits_1_and_makes_nothing(agentctl: Agentctl, prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[service.api]\nkind = 'comand'\n")
    done = agentctl("run", "wrong.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path}/wrong.toml:2: service.api.kind: ")
    assert not prefix.exists()


def test_a_missing_declaration_is_no_reason_to_write_one(agentctl: Agentctl, prefix: Path) -> None:
    done = agentctl("run")
    assert done.returncode == 1
    assert str(prefix / "key" / "env.toml") in done.stderr
    assert not prefix.exists()


def test_default_writes_a_declaration_of_every_kind_and_runs_it(
    agentctl: Agentctl, prefix: Path, unused_port: int
) -> None:
    with agentctl.start("run", "--default", DEMO_PORT=str(unused_port)) as process:
        assert process.stdout
        assert process.stdout.readline() == f"wrote a demonstration to {prefix}/key/env.toml\n"
        lines_until(process, "in another terminal: ")
        for kind in ("capture", "scan", "command"):
            assert f'"kind": "{kind}"' in agentctl("status", "--json").stdout
        process.terminate()
        assert process.wait(10) == 0


def test_default_leaves_a_declaration_alone(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text("# mine\n")
    with agentctl.start("run", "--default") as process:
        lines_until(process, "in another terminal: ")
        process.terminate()
        assert process.communicate(timeout=10)[0] == ""
    assert declaration.read_text() == "# mine\n"


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("misconfigured", 1), ("bad", 2), ("nobody", 1)])
def test_a_job_in_the_foreground_is_judged_by_the_contract(
    agentctl: Agentctl, declaration: Path, name: str, code: int
) -> None:
    declaration.write_text(JOBS)
    assert agentctl("run-once", name).returncode == code


def test_the_output_of_a_job_is_ours(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(JOBS)
    assert agentctl("run-once", "good").stdout == "out\n"
    done = agentctl("run-once", "bad")
    assert "why\n" in done.stdout + done.stderr
    assert "did you mean good?" in agentctl("run-once", "god").stderr


def test_the_program_is_named_as_it_can_be_typed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "agentctl"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert invocation("bin/agentctl") == str(program)
    monkeypatch.setenv("PATH", str(program.parent))
    assert invocation(str(program)) == "agentctl"
    (tmp_path / "agentctl").touch(mode=0o644)
    monkeypatch.setenv("PATH", f"{tmp_path}:{program.parent}")
    assert invocation(str(program)) == "agentctl", "a file that cannot be executed is none the shell would run"
    assert invocation("/x/agent/__main__.py").endswith(" -m agent")
    assert invocation("/has space/agentctl") == "'/has space/agentctl'"
    assert invocation("agentctl-0.1.0") == "agentctl-0.1.0", "what has no slash was found in the PATH, and not here"


def test_a_working_directory_that_is_gone_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert invocation("./agentctl") == "./agentctl"


def test_the_prefix_is_named_unless_it_is_the_default() -> None:
    assert invitation(Paths.of("/srv")).startswith("PREFIX=") is False
    assert invitation(Paths.of("/a b")).startswith("PREFIX='/a b' ")


def test_with_json_the_agent_prints_its_events_and_nothing_else(
    agentctl: Agentctl, declaration: Path, prefix: Path
) -> None:
    declaration.write_text("")
    with agentctl.start("run", "--json") as process:
        assert process.stdout
        kinds = []
        for line in process.stdout:
            kinds.append(json.loads(line)["kind"])
            if kinds[-1] == "agent_ready":
                process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert kinds == ["agent_started", "agent_ready", "agent_stopping", "agent_stopped"]


def test_with_json_run_once_tells_how_it_ended_apart_from_the_jobs_output(
    agentctl: Agentctl, declaration: Path
) -> None:
    declaration.write_text("""
[service.noisy]
kind = "command"
command = ["/bin/sh", "-c", "echo said; exit 7"]
every = "1h"
""")
    done = agentctl("run-once", "noisy", "--json")
    assert done.returncode == 2
    assert done.stderr == "said\n"
    found = json.loads(done.stdout)
    assert found.pop("seconds") < 10
    assert found == {"name": "noisy", "exit_code": 2, "message": "exited 7"}


RETRIED = """
[service.third_time]
kind = "command"
command = ["/bin/sh", "-c", "echo x >> tries; [ $$(wc -l < tries) -ge 3 ] || exit 2"]
working_directory = "{directory}"
every = "1h"
restart = "{restart}"

[service.hopeless]
kind = "command"
command = ["/bin/sh", "-c", "echo x >> tries; exit {code}"]
working_directory = "{directory}"
every = "1h"
restart = "on-failure"
max_restarts = 2
"""


@pytest.mark.parametrize(
    ("restart", "option", "code", "tries"),
    [("on-failure", ["--retry"], 0, 3), ("on-failure", [], 2, 1), ("no", ["--retry"], 2, 1)],
)
def test_a_run_that_fails_is_followed_by_others_if_that_is_declared_and_asked_for(
    agentctl: Agentctl, declaration: Path, tmp_path: Path, restart: str, option: list[str], code: int, tries: int
) -> None:
    declaration.write_text(RETRIED.format(directory=tmp_path, restart=restart, code=2))
    done = agentctl("run-once", *option, "third_time")
    assert done.returncode == code, done.stderr
    assert (tmp_path / "tries").read_text().count("x") == tries
    assert ("agentctl: third_time: exited 2; retry in 0." in done.stderr) == (tries > 1)


@pytest.mark.parametrize(
    ("code", "tries", "told"), [(2, 3, "exited 2"), (1, 1, "exited 1: its configuration is wrong")]
)
def test_it_gives_up_as_the_agent_does(
    agentctl: Agentctl, declaration: Path, tmp_path: Path, code: int, tries: int, told: str
) -> None:
    declaration.write_text(RETRIED.format(directory=tmp_path, restart="no", code=code))
    done = agentctl("run-once", "hopeless", "--retry")
    assert done.returncode == code
    assert (tmp_path / "tries").read_text().count("x") == tries
    assert done.stderr.splitlines()[-1] == f"agentctl: hopeless: {told}"


def told_to_systemd(agentctl: Agentctl, name: str) -> list[str]:
    """The STATUS= lines of a run, in the order in which a service manager gets them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        manager.settimeout(5)
        agentctl("run-once", name, NOTIFY_SOCKET="@" + manager.getsockname()[1:].decode())
        manager.setblocking(False)
        found = []
        try:
            while True:
                found.append(manager.recv(65536).decode())
        except BlockingIOError:
            return [message.removeprefix("STATUS=") for message in found]


def test_a_service_manager_is_told_how_it_goes_and_how_it_went(agentctl: Agentctl, declaration: Path) -> None:
    notify = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
    send = "s.sendto(b'STATUS=half of it is done', os.environ['NOTIFY_SOCKET'])"
    declaration.write_text(
        JOBS
        + f"""
[service.talks]
kind = "command"
command = ["{sys.executable}", "-c", "{notify}; {send}"]
oncalendar = "yearly"

[service.floods]
kind = "command"
command = ["{sys.executable}", "-c", "{notify}; [s.sendto(b'STATUS=%d' % n, os.environ['NOTIFY_SOCKET']) for n in range(500)]"]
oncalendar = "yearly"
"""  # noqa: E501  # one program
    )
    assert told_to_systemd(agentctl, "good")[-1] == "exited 0"
    assert told_to_systemd(agentctl, "bad")[-1] == "exited 7"
    assert told_to_systemd(agentctl, "misconfigured")[-1] == "exited 1: its configuration is wrong"
    assert told_to_systemd(agentctl, "talks") == ["half of it is done", "exited 0", "exited 0"]
    assert len(told_to_systemd(agentctl, "floods")) < 20


def test_one_that_sheds_every_sign_of_its_job_ends_with_it(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text("""
[service.runaway]
kind = "command"
command = ["/bin/sh", "-c", "(setsid env -i sleep 86491 >/dev/null 2>&1 &)"]
every = "1h"
""")
    for _ in range(3):
        done = agentctl("run-once", "runaway")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        wait_until(lambda: not commanded("sleep 86491"))


def test_limits_that_do_not_hold_here_are_named(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text("""
[service.bounded]
kind = "command"
command = ["/bin/true"]
every = "1h"
limits = { memory = "1M", cpus = 0.01 }
""")
    done = agentctl("run-once", "bounded")
    assert done.returncode == 0
    assert done.stderr == "agentctl: bounded: memory, cpus of its limits: run-once does not put them in force\n"


@pytest.mark.parametrize(
    ("number", "by_a_manager", "code"),
    [(signal.SIGINT, False, 130), (signal.SIGINT, True, 2), (signal.SIGTERM, False, 2)],
)
def test_ctrl_c_is_130_but_to_a_service_manager(
    agentctl: Agentctl, declaration: Path, tmp_path: Path, number: int, by_a_manager: bool, code: int
) -> None:
    declaration.write_text("""
[service.endless]
kind = "command"
command = ["/bin/sh", "-c", "echo begun; exec sleep 86492"]
every = "1h"
""")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify")} if by_a_manager else {}
        with agentctl.start("run-once", "endless", **variables) as process:
            assert process.stdout and process.stderr
            assert process.stdout.readline() == "begun\n"
            process.send_signal(number)
            assert process.wait(10) == code
            assert process.stderr.read() == f"agentctl: endless: interrupted by {signal.Signals(number).name}\n"
