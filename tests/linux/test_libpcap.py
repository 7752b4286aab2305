"""libpcap is found by the names it goes by, without a process that looks for it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from agent.linux import libpcap

ROOT = Path(__file__).parents[2]


def test_the_hosts_library_is_loaded() -> None:
    found = libpcap.load()
    assert found is not None
    name, library = found
    assert name in libpcap.NAMES
    library.pcap_lib_version.restype = ctypes.c_char_p
    assert library.pcap_lib_version().startswith(b"libpcap version ")


def test_the_first_name_that_is_there_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libpcap, "NAMES", ("libpcap.so.nowhere", "libc.so.6", "libm.so.6"))
    found = libpcap.load()
    assert found is not None and found[0] == "libc.so.6"
    monkeypatch.setattr(libpcap, "NAMES", ("libpcap.so.nowhere",))
    assert libpcap.load() is None


def test_neither_it_nor_scapy_starts_a_process() -> None:
    script = (
        "import sys\n"
        "sys.addaudithook(lambda event, given: event.startswith(('subprocess', 'os.posix_spawn', 'os.fork', 'os.exec'))"
        " and sys.exit(f'{event} {given}'))\n"
        "import agent.workers.capture.worker\n"
        "import ctypes.util\n"
        "ctypes.util.find_library('pcap')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith("subprocess.Popen "), "the last line asks as scapy would"
    assert "ldconfig" in done.stderr
