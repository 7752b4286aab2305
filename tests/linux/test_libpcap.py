"""The capture library is found by its names, and by nobody else's help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.linux import libpcap

ROOT = Path(__file__).parents[3]


def test_the_hosts_library_is_found() -> None:
    found = libpcap.load()
    assert found is not None
    assert hasattr(found[1], "pcap_open_live")


def test_a_name_that_nothing_has_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    found = libpcap.load()
    assert found is not None
    monkeypatch.setattr(libpcap, "NAMES", ("libpcap.so.nowhere", found[0]))
    again = libpcap.load()
    assert again is not None and again[0] == found[0]
    monkeypatch.setattr(libpcap, "NAMES", ("libpcap.so.nowhere",))
    assert libpcap.load() is None


def test_loading_the_bindings_starts_no_process() -> None:
    script = """
import sys
def refuse(event, arguments):
    assert event not in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"), (event, arguments)
sys.addaudithook(refuse)
import agent.workers.capture.binding
import ctypes.util
try:
    ctypes.util.find_library("pcap")
except AssertionError:
    print("what is looked for otherwise is refused")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stdout == "what is looked for otherwise is refused\n", done.stderr
