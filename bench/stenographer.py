"""Debian's stenographer, set up from nothing: authorities, a configuration, its daemon on the near end of the wire."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from bench import process
from bench.wire import NEAR, PATIENCE, Wire, ended

PORT = 1234
AGE = 10
"""Seconds after which it closes a file, at the earliest: only then can it be asked about. By default 60."""
LOOK = 16.0
"""Seconds: every 15 it looks which files there are."""
_EXTENSIONS = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
_FLAGS = (f"--fileage_sec={AGE}", "--blocks=256", "--aiops=64", "--no_watchdogs", "--seccomp=none")
"""Blocks are of 1 MB, and fewer do not work. Its watchdog takes a quiet wire for a failure, and its seccomp filter is
older than this libc."""


class Stenographer:
    """Captures and answers in a ``with`` block."""

    def __init__(self, wire: Wire, directory: Path) -> None:
        self._wire = wire
        self._directory = directory
        self._packets, index, self._certificates = (directory / name for name in ("packets", "index", "certificates"))
        for path in (self._packets, index, self._certificates):
            path.mkdir(parents=True)
        thread = {"PacketsDirectory": str(self._packets), "IndexDirectory": str(index), "DiskFreePercentage": 1}
        configuration = {
            "Threads": [{**thread, "MaxDirectoryFiles": 30_000}],
            "StenotypePath": "/usr/sbin/stenotype",
            "Interface": NEAR,
            "Port": PORT,
            "Host": "127.0.0.1",
            "Flags": [*_FLAGS, "--uid=root", "--gid=root"],
            "CertPath": str(self._certificates),
        }
        self._configuration = directory / "config"
        self._configuration.write_text(json.dumps(configuration))
        self._certify()

    def _certify(self) -> None:
        """An authority, and what it signs for both sides."""
        new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
        at = self._certificates
        extensions = at / "extensions"
        extensions.write_text(_EXTENSIONS)
        authority = ("-subj", "/CN=authority", "-keyout", str(at / "ca_key.pem"), "-out", str(at / "ca_cert.pem"))
        _run("openssl", "req", "-x509", *new, *authority)
        for side in ("server", "client"):
            files = ("-keyout", str(at / f"{side}_key.pem"), "-out", str(at / f"{side}.csr"))
            _run("openssl", "req", *new[:3], "-subj", f"/CN={side}", *files)
            by = ("-CA", str(at / "ca_cert.pem"), "-CAkey", str(at / "ca_key.pem"), "-CAcreateserial")
            files = ("-in", str(at / f"{side}.csr"), "-out", str(at / f"{side}_cert.pem"))
            _run("openssl", "x509", "-req", *new[3:], *by, "-extfile", str(extensions), *files)

    def __enter__(self) -> Stenographer:
        _run(*self._wire.near("ip", "link", "set", "lo", "up"))  # where it listens
        command = self._wire.near("stenographer", "-config", str(self._configuration), "-syslog=false")
        self._output = self._directory / "output"
        with self._output.open("wb") as output:
            self._running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            process.await_true(self._captures, "the start of stenographer", within=PATIENCE, every=0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _captures(self) -> bool:
        if self._running.poll() is not None:
            raise ValueError(f"stenographer ended: {self._output.read_text(errors='replace')}")
        return any(path.name.startswith(".") for path in self._packets.iterdir())

    def settle(self) -> None:
        """Wait until all that was captured can be asked about: the file that was open has been closed, and indexed."""
        at_first = max(path.name for path in self._packets.iterdir() if path.name.startswith("."))
        closed = self._packets / at_first[1:]
        indexed = self._packets.parent / "index" / at_first[1:]
        what = "stenographer's closing a file"
        process.await_true(lambda: closed.exists() and indexed.exists(), what, within=PATIENCE, every=0.1)
        time.sleep(LOOK)

    def ask(self, expression: str, answer: Path) -> float:
        """Seconds that curl takes to get the answer."""
        at = self._certificates
        answer.unlink(missing_ok=True)
        who = ("--cacert", at / "ca_cert.pem", "--cert", at / "client_cert.pem", "--key", at / "client_key.pem")
        options = ("--fail", "--silent", "--show-error", *map(str, who), "--data", expression, "--output", str(answer))
        begun = time.monotonic()
        _run(*self._wire.near("curl", *options, f"https://127.0.0.1:{PORT}/query"))
        return time.monotonic() - begun

    def __exit__(self, *error: object) -> None:
        family = list(process.descendants(self._running.pid))
        with ended(self._running) as running:
            running.send_signal(signal.SIGKILL)
        process.end_all(family)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
