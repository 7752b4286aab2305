"""The harness itself: what a container promises to the tests that are made with it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.harness import wait_until
from tests.system.container import Container

SOURCE = Path(__file__).resolve().parents[2]
BOOT_MAX = 2.0
"""Seconds that the issue grants a boot."""


def test_boots_within_two_seconds_and_nothing_has_failed() -> None:
    with Container(boot=False) as machine:
        begun = time.monotonic()
        machine.boot()
        assert time.monotonic() - begun < BOOT_MAX
        assert machine.run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_a_command_runs_as_whom_and_where_it_was_asked(container: Container) -> None:
    assert container.run(["id", "-un"]).stdout == "root\n"
    assert container.run(["id", "-un"], user="nobody").stdout == "nobody\n"
    assert container.run(["cat"], stdin="given").stdout == "given"
    assert container.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    inside = container.run_in_unit(["sh", "-c", "id -un; cat /proc/self/cgroup"], "User=nobody").stdout
    assert inside.startswith("nobody\n")
    assert "\n0::/system.slice/run-u" in inside


def test_what_a_test_makes_of_one_container_is_not_in_the_next() -> None:
    with Container(boot=False) as first:
        first.write("/etc/made-by-a-test", "text")
        assert first.path("/etc/made-by-a-test").read_text() == "text"
    with Container(boot=False) as second:
        assert not second.path("/etc/made-by-a-test").exists()


def test_a_reboot_keeps_files_and_journal_and_ends_every_process(container: Container) -> None:
    container.write("/etc/kept", "text")
    container.run(["systemd-cat", "--identifier=before", "echo", "told before the reboot"])
    container.run(["systemd-run", "--unit=lasting", "sleep", "4321"])
    container.reboot()
    assert container.path("/etc/kept").read_text() == "text"
    assert "told before the reboot" in container.journal("--identifier=before", "--boot=-1")
    assert not any("4321" in words for words in container.processes().values())


def test_the_journal_is_there_when_the_machine_is_off(container: Container) -> None:
    container.run(["systemd-cat", "--identifier=before", "echo", "told before the end"])
    container.poweroff()
    assert not container.is_up
    assert "told before the end" in container.journal("--identifier=before")


def test_units_and_journal_can_be_waited_for(container: Container) -> None:
    container.run(["systemd-run", "--unit=short", "--property=RemainAfterExit=yes", "sh", "-c", "sleep 0.3; echo done"])
    assert "done" in container.wait_journal(lambda line: line.endswith("done"), "--unit=short")
    container.wait_unit_state("short", SubState="exited")
    (entry,) = [entry for entry in container.entries("--unit=short") if entry["MESSAGE"] == "done"]
    assert entry["_SYSTEMD_UNIT"] == "short.service"


def test_two_containers_know_nothing_of_each_other(container: Container) -> None:
    with Container() as other:
        other.run(["systemd-run", "--unit=theirs", "sleep", "4321"])
        assert container.show("theirs", "LoadState") == {"LoadState": "not-found"}
        assert not any("4321" in words for words in container.processes().values())
        assert any("4321" in words for words in other.processes().values())
    assert container.run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_a_cable_carries_packets_between_the_container_and_a_network_inside_it(container: Container) -> None:
    container.veth("near0", "far0")
    assert "1 host up" in container.run(["nmap", "-sn", "-n", "10.99.0.2"]).stdout
    assert "1 host up" in container.run(["ip", "netns", "exec", "far0", "nmap", "-sn", "-n", "10.99.0.1"]).stdout


def test_evidence_names_what_was_said(container: Container, tmp_path: Path) -> None:
    container.run(["systemd-cat", "echo", "something of note"])
    container.keep_evidence(tmp_path)
    assert "something of note" in (tmp_path / "journal").read_text()
    assert "systemd-journald.service" in (tmp_path / "units").read_text()
    assert "Multi-User System" in (tmp_path / "console").read_text()


FAILING = """
import pytest
from tests.system.container import Container

@pytest.fixture
def machine():
    with Container(boot=False) as made:
        yield made

def test_of_a_fixture(machine):
    machine.boot()
    machine.run(["systemd-cat", "echo", "told in one"])
    assert False

def test_of_its_own():
    with Container() as machine:
        machine.run(["systemd-cat", "echo", "told in the other"])
        assert False
"""


def test_a_failed_test_leaves_evidence_wherever_it_is_and_however_it_came_by_its_container(tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, tmp_path], cwd=SOURCE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout
    places = [Path(found) for found in re.findall(r"^journal, console and units: (.+)$", done.stdout, re.MULTILINE)]
    one, other = ((place / "journal").read_text() for place in places)
    assert "told in one" in one and "told in the other" in other
    for place in places:
        assert "Multi-User System" in (place / "console").read_text()
        shutil.rmtree(place.parent)


def test_nothing_is_left_when_the_test_process_is_killed() -> None:
    program = (
        "from tests.system.container import Container\n"
        "with Container() as machine:\n"
        "    machine.run(['systemd-run', 'sleep', '7654321'])\n"
        "    print(machine.cgroup, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=SOURCE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout
        cgroup = Path(killed.stdout.readline().strip())
        assert _sleepers()
        os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: not _sleepers(), lambda: "the container outlived the process that made it")
    # The one thing that the kernel does not take back is an empty cgroup: the next session does.
    wait_until(lambda: not cgroup.exists() or "populated 0" in (cgroup / "cgroup.events").read_text())
    with Container(boot=False):
        assert not cgroup.exists()


def _sleepers() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"7654321" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
