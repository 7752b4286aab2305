"""``agentctl install``, typed: the built program lays itself into the image of a system."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from agent import __version__
from agent.cli.base import Session
from agent.cli.install import chosen, ending
from agent.installation.install import Outcome
from agent.installation.steps import Sync
from tests.binary import built
from tests.cli.harness import Agentctl, Done
from tests.harness import wait_until
from tests.installation.image import mounted, snapshot, system


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return system(tmp_path / "image")


def typed(*arguments: str, program: Path | None = None, **variables: str) -> Done:
    """The built program with these arguments."""
    return subprocess.run(
        [program or built().program, *arguments],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("form", ["one file", "installed form"])
def test_it_is_laid_and_a_second_time_there_is_nothing_to_do(image: Path, form: str) -> None:
    program = built().onefile if form == "one file" else built().program
    done = typed("install", "--root", str(image), program=program)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"laid      /srv/lib/agent/{__version__} (") and lines[0].endswith(" files)")
    assert f"linked    /srv/lib/agent/current -> {__version__}" in lines
    assert "wrote     /etc/systemd/system/agent.service" in lines
    assert lines[-2:] == [
        f"{__version__} is installed below /srv in {image}",
        f"next: edit /srv/key/env.toml; then systemctl --root={image} enable agent.socket agent.service",
    ]
    laid = image / "srv/lib/agent/current/agentctl"
    assert laid.read_bytes() == built().program.read_bytes()
    before = snapshot(image)
    done = typed("install", "--root", str(image), program=program)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"nothing to do: {__version__} is installed below /srv\n",
        "",
    )
    assert snapshot(image) == before


@pytest.mark.parametrize("program", ["one file", "installed form"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ro", "its file system is mounted read-only: remount it, or change --prefix"),
        ("size=8m", r"[0-9.]+ MiB are needed there, and 8\.0 MiB are free: make room, or change --prefix"),
        ("nr_inodes=20", r"\d+ files are to be laid, and 19 inodes are free: remove files, or change --prefix"),
    ],
)
def test_a_disk_that_will_not_do_is_one_line_and_exit_code_2(
    image: Path, options: str, told: str, program: str
) -> None:
    with mounted(image / "srv", options):
        before = snapshot(image)
        form = built().onefile if program == "one file" else built().program
        done = typed("install", "--root", str(image), program=form)
        assert snapshot(image) == before
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"agentctl: /srv: {told}\n", done.stderr)


def test_the_laid_program_works_below_the_prefix_that_it_is_laid_below(image: Path) -> None:
    typed("install", "--root", str(image), "--prefix", "/opt/agent")
    done = typed("status", program=image / "opt/agent/bin/agentctl")
    assert f"no answer on {image}/opt/agent/run/agent.sock" in done.stderr
    done = typed("status", program=image / "opt/agent/bin/agentctl", PREFIX="/named")
    assert "no answer on /named/run/agent.sock" in done.stderr


def test_a_dry_run_says_what_would_be_done(image: Path) -> None:
    before = snapshot(image)
    done = typed("install", "--dry-run", "--root", str(image))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"lay       /srv/lib/agent/{__version__} (")
    assert lines[-1] == f"nothing was done: this is what would install {__version__} below /srv"
    assert snapshot(image) == before


def test_ctrl_c_says_that_the_next_run_goes_on(image: Path, tmp_path: Path) -> None:
    """While a program that it needs takes its time."""
    slow = tmp_path / "systemd-sysusers"
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nexec sleep 1000\n")
    slow.chmod(0o755)
    with subprocess.Popen(
        [built().program, "install", "--root", image],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said.count("\n")) == (130, 1)
    assert "interrupted: the next run goes on from there, and `agentctl uninstall` takes it back" in said
    assert typed("install", "--root", str(image)).stdout.splitlines()[-2].startswith(f"{__version__} is installed")


def test_json_has_every_step(image: Path) -> None:
    done = typed("install", "--json", "--root", str(image))
    said = json.loads(done.stdout)
    assert (said["prefix"], said["root"], said["before"], said["version"]) == ("/srv", str(image), "", __version__)
    assert said["changed"] and not said["dry_run"]
    assert {step["step"] for step in said["steps"]} == {
        *("begin", "directory", "file", "link", "sync", "users", "directories", "declaration", "record")
    }
    assert not any("record" in step for step in said["steps"])
    again = json.loads(typed("install", "--json", "--root", str(image)).stdout)
    assert (again["changed"], again["steps"]) == (False, [])


def test_all_that_stands_in_the_way_is_a_line_each_and_the_exit_code_is_2(image: Path) -> None:
    for place in ("srv/lib/agent/current", "etc/systemd/system/agent.service"):
        (image / place).parent.mkdir(parents=True, exist_ok=True)
        (image / place).write_text("theirs")
    done = typed("install", "--root", str(image))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "agentctl: /etc/systemd/system/agent.service is a file that was not laid by agentctl: move it away",
        "agentctl: /srv/lib/agent/current is a file that was not laid by agentctl: move it away",
    ]


@pytest.mark.parametrize("prefix", ["srv", "/srv/a b", "/srv/%n", "/srv/a\nb", "/"])
def test_a_prefix_that_cannot_be_is_a_wrong_command_line(image: Path, prefix: str) -> None:
    for command in ("install", "uninstall"):
        done = typed(command, "--root", str(image), "--prefix", prefix)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("agentctl: --prefix ")
        assert typed(command, "--root", str(image), PREFIX=prefix).returncode == 1


def test_a_source_tree_says_how_it_is_built(agentctl: Agentctl) -> None:
    done = agentctl("install")
    assert done.returncode == 2
    assert done.stderr == (
        "agentctl: this is the source tree, which cannot be installed; run the built agentctl: make binary\n"
    )


def test_the_prefix_is_the_one_named_else_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFIX", raising=False)
    assert chosen(Session()) == "/srv"
    monkeypatch.setenv("PREFIX", "relative")
    assert chosen(Session()) == "relative"
    assert chosen(Session(prefix=Path("other"))) == "other"


def test_what_may_come_next_is_said() -> None:
    upgraded = Outcome("/srv", "/", "0.1.0", "0.1.1", False, (Sync("/srv"),), kept=("/srv/share",), running=(7, 8))
    assert list(ending(upgraded)) == [
        "0.1.1 is installed below /srv",
        "another version is still running (process 7, 8): systemctl reload agent replaces it",
        "kept: /srv/share: changed since it was laid, or not laid by agentctl",
    ]
    first = Outcome("/opt/agent", "/", "", "0.1.1", False, (Sync("/srv"),))
    assert list(ending(first))[1] == (
        "next: edit /opt/agent/key/env.toml; then systemctl enable --now agent.socket agent.service"
    )
