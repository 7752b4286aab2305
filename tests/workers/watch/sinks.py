"""Real receivers: an HTTP server that can be told how to answer, and a mail system that keeps what it is given."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Request(NamedTuple):
    """``headers`` are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Hook(ThreadingHTTPServer):
    """Keeps each request, and answers with the next of ``codes``; when there is none left, with 204."""

    def __init__(self, codes: list[int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.codes = codes or []
        self.requests: list[Request] = []
        self.came = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(
            Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        self.send_response(self.server.codes.pop(0) if self.server.codes else 204)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.came.release()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hook(codes: list[int] | None = None, certificate: Path | None = None) -> Iterator[Hook]:
    """A server on a free port; with TLS if there is a ``certificate``, a file with its key too."""
    server = Hook(codes)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def mail_system(directory: Path, port: int | None = None) -> Iterator[int]:
    """msmtpd(1) on a free port, which appends each mail it takes, with who is to have it, to ``directory/mail``."""
    port = free_port() if port is None else port
    keep = directory / "keep"
    keep.write_text(
        f'#!/bin/sh\n{{ echo "$@"; cat; }} >> {directory}/mail.new && cp {directory}/mail.new {directory}/mail\n'
    )
    keep.chmod(0o755)
    command = f"{keep} %F --"
    process = subprocess.Popen(["msmtpd", "--interface=127.0.0.1", f"--port={port}", f"--command={command}"])
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.01)
        yield port
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
