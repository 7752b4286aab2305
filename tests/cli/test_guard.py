"""The rim of every process: each way to end has its exit code and its one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli.guard import LOG_LIMIT, guarded
from agent.errors import DeclarationError, NotRunning, Problem, UsageError


def end(work: Callable[[], int], log: Path = Path("/nonexistent/log")) -> int:
    return guarded(work, program="agentctl", log=log)


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize("code", [0, 1, 2, 7])
def test_an_exit_code_passes_through(code: int) -> None:
    assert end(lambda: code) == code


def test_an_error_of_ours_is_one_line_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(raising(UsageError("that cannot be meant"))) == 1
    assert end(raising(NotRunning("/srv/run/agent.sock", "no such file"))) == 2
    assert capsys.readouterr().err == (
        "agentctl: that cannot be meant\n"
        "agentctl: the agent is not running: no answer on /srv/run/agent.sock (no such file)\n"
    )


def test_each_problem_of_a_declaration_begins_its_line_with_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem("env.toml", 9, "service.b.kind", "missing"), Problem("env.toml", 2, "agent", "unknown\x1b")]
    assert end(raising(DeclarationError(problems))) == 1
    assert capsys.readouterr().err == ("env.toml:2: agent: unknown\\x1b\nenv.toml:9: service.b.kind: missing\n")


def test_what_the_journal_reads_is_marked_as_an_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    end(raising(DeclarationError([Problem("env.toml", 2, "agent", "x"), Problem("env.toml", 3, "agent", "y")])))
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    end(raising(UsageError("that cannot be meant")))
    assert (
        capfd.readouterr().err == "<3>env.toml:2: agent: x\n<3>env.toml:3: agent: y\nagentctl: that cannot be meant\n"
    )


def test_ctrl_c_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_one_line_and_its_traceback_goes_to_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "agentctl.log"
    assert end(raising(KeyError("key\nwith a line")), log) == 2
    line = capsys.readouterr().err
    assert line.startswith("agentctl: internal error: KeyError: ") and line.count("\n") == 1
    assert str(log) in line and "test_guard.py:" in line
    assert "Traceback (most recent call last)" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_bug_without_a_place_for_its_traceback_is_one_line_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(raising(ValueError("x"))) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_log_of_bugs_is_never_a_planted_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "agentctl.log").symlink_to(victim)
    assert end(raising(ValueError("x")), tmp_path / "agentctl.log") == 2
    assert victim.read_text() == "precious"


def test_the_log_of_bugs_is_no_pipe_that_somebody_reads_or_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "agentctl.log")
    assert end(raising(ValueError("x")), tmp_path / "agentctl.log") == 2
    reader = os.open(tmp_path / "agentctl.log", os.O_RDONLY | os.O_NONBLOCK)
    assert end(raising(ValueError("x")), tmp_path / "agentctl.log") == 2
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert capsys.readouterr().err.count("its details could not be logged") == 2


@pytest.mark.parametrize("size", [8, LOG_LIMIT + 1])
def test_the_log_of_bugs_is_no_second_name_of_another_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x" * size)
    os.link(victim, tmp_path / "agentctl.log")
    assert end(raising(ValueError("x")), tmp_path / "agentctl.log") == 2
    assert victim.read_bytes() == b"x" * size
    assert "its details could not be logged" in capsys.readouterr().err


def test_the_log_of_bugs_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "agentctl.log"
    log.write_bytes(b"x" * (LOG_LIMIT + 1))
    end(raising(ValueError("x")), log)
    assert 0 < log.stat().st_size < LOG_LIMIT


IN_A_PROCESS = """
import sys
from pathlib import Path
from agent.cli.guard import guarded

def work():
    for number in range(20_000):
        print("line", number)
    return 0

sys.exit(guarded(work, program="agentctl", log=Path("/nonexistent/log")))
"""


def start(environment: dict[str, str], stdout: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS], env=environment, stdout=stdout, stderr=subprocess.PIPE
    )


def test_a_reader_that_goes_away_ends_it_quietly_as_sigpipe_would(environment: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(environment, stdout=write)
    os.close(write)
    assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 141


def test_output_that_does_not_fit_on_the_disk_is_a_failure(environment: dict[str, str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = start(environment, stdout=full)
    os.close(full)
    error = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 2
    assert error == "agentctl: cannot write the output: No space left on device\n"


def test_a_closed_stdout_is_survived(environment: dict[str, str]) -> None:
    closing = f"import os; os.close(1); os.execv({sys.executable!r}, ['python', '-c', {IN_A_PROCESS!r}])"
    command = [sys.executable, "-c", closing]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_file_gets_the_place_of_a_closed_stream(environment: dict[str, str], tmp_path: Path) -> None:
    script = f"""
from agent.cli.guard import guarded
import json, os, sys
from pathlib import Path
def work():
    with open({str(tmp_path / "opened")!r}, "w") as file:
        print(file.fileno(), json.dumps([os.readlink(f"/proc/self/fd/{{fd}}") for fd in range(3)]), file=file)
    return 0
sys.exit(guarded(work, program="x", log=Path("/dev/null")))
"""
    for closed in ((0,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        closing = (
            f"import os; [os.close(fd) for fd in {closed}]; os.execv({sys.executable!r}, ['python', '-c', {script!r}])"
        )
        done = subprocess.run([sys.executable, "-c", closing], env=environment, timeout=30, check=False)
        assert done.returncode == 0
        number, _, places = (tmp_path / "opened").read_text().partition(" ")
        assert int(number) > 2 and all(json.loads(places)[fd] == os.devnull for fd in closed), (closed, places)
