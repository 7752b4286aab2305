"""A process born in its cgroup, of a process that has more threads than the agent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agent.linux.cgroup import CgroupTree
from tests.linux.processes import eventually

_SCRIPT = """
import os, sys, threading
from agent.linux.spawn import SpawnRequest, spawn

read, write = os.pipe()
def wants_the_lock():
    while os.read(read, 1):
        pass
threading.Thread(target=wants_the_lock, daemon=True).start()
feeder = os.fork()
if feeder == 0:
    os.close(read)
    while True:
        os.write(write, b"x")
cgroup = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
for _ in range(3):
    child = spawn(SpawnRequest(argv=["/bin/true"], environment={}, cgroup=cgroup))
    child.pidfd.wait()
os.kill(feeder, 9)
print("all were born", flush=True)
os._exit(0)
"""


def test_another_thread_that_wants_to_go_on_does_not_keep_a_child_from_its_program(tree: CgroupTree) -> None:
    """The kernel takes its time, as on a busy machine: long enough for the other thread to ask for its turn."""
    service = tree.service("threads")
    slow = ["strace", "--quiet=all", "-o", "/dev/null", "-e", "trace=clone3", "-e", "inject=clone3:delay_enter=50000"]
    done = subprocess.run(
        [*slow, sys.executable, "-c", _SCRIPT, str(service.directory)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.stdout == "all were born\n", done.stderr
    eventually(lambda: not service.populated())
    assert service.remove()
