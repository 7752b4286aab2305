"""The entry of a worker process."""

from __future__ import annotations

import subprocess
import sys


def test_a_kind_without_a_worker_is_refused_with_the_kinds_there_are() -> None:
    code = "from agent.workers.main import main; raise SystemExit(main('command'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (
        1,
        "worker command: no such kind; one of capture, index, member, scan, watch\n",
    )


def test_a_capture_worker_loads_neither_nmap_nor_most_of_scapy() -> None:
    code = (
        "import sys, agent.workers.capture.worker\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('scapy', 'nmap', 'psutil', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.strip() == str(
        ["scapy", "scapy.consts", "scapy.libs", "scapy.libs.structures", "scapy.libs.winpcapy"]
    )
