"""python-nmap comes without what it would start processes with, and leaves no trace of that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

IMPORT = "from agent.workers.scan.library import nmap"


def after(*statements: str) -> str:
    """What a new interpreter printed."""
    script = "\n".join(["import sys", *statements])
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_multiprocessing_is_not_loaded_with_it() -> None:
    loaded = "[name for name in sys.modules if name.startswith('multiprocessing')]"
    assert after(IMPORT, f"print(nmap.PortScanner.__name__, {loaded})") == "PortScanner []\n"


def test_who_loaded_it_before_keeps_it() -> None:
    kept = "nmap.nmap.Process is multiprocessing.Process, sys.modules['multiprocessing'] is multiprocessing"
    assert after("import multiprocessing", IMPORT, f"print({kept})") == "True True\n"


def test_who_loads_it_later_gets_the_real_one() -> None:
    assert after(IMPORT, "import multiprocessing", "print(multiprocessing.Process.__name__)") == "Process\n"
