"""A lower share of the processor by a cgroup: where that cannot be, nothing is touched.

Where it can be, a machine with the controllers shows it: ``tests/machine/inside/test_units.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.linux.cgroup_place import read
from tests.linux.processes import own_directory

ROOT = Path(__file__).resolve().parents[2]
ASIDE = "from agent.linux.cgroup_aside import step_aside; print(step_aside(10))"


def told(directory: Path) -> str:
    """What a process in that cgroup is told that tries to."""
    script = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
    argv = ["sh", "-c", script, "sh", str(directory), sys.executable, "-c", ASIDE]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True, timeout=20).stdout.strip()


@pytest.mark.parametrize("name", ["service.lan", "somebody.else"])
def test_without_a_processor_to_divide_or_a_service_nothing_is_touched(name: str) -> None:
    directory = own_directory() / name
    directory.mkdir()
    try:
        divided = "cpu" in read(directory / "cgroup.controllers").split()
        assert told(directory) == str(divided and name == "service.lan")
        assert (directory / "aside").exists() == (divided and name == "service.lan")
    finally:
        for place in (directory / "aside", directory):
            if place.exists():
                place.rmdir()
