"""Messages to a real HTTP server, with and without TLS."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.linux.environment import base_environment
from agent.workers.watch.notify_program import Outcome
from agent.workers.watch.notify_webhook import key_of, post, sign
from tests.workers.watch.sinks import free_port, hook

BODY = '{"text":"ünï \\" \n"}'.encode()
NOW = 1_795_000_000.7


def deliver(url: str, key: bytes | None = None, environment: Mapping[str, str] | None = None) -> Outcome:
    return asyncio.run(post(url, "the-id", BODY, key, NOW, environment or base_environment(os.environ)))


def test_a_message_is_posted_as_it_is_and_signed() -> None:
    with hook() as server:
        assert deliver(f"{server.url}?a=b&c={{d}}".replace("{d}", "%7B"), b"s3cret") == Outcome(True)
        (request,) = server.requests
    assert (request.path, request.body) == ("/hook?a=b&c=%7B", BODY)
    assert request.headers["content-type"] == "application/json"
    assert (request.headers["webhook-id"], request.headers["webhook-timestamp"]) == ("the-id", "1795000000")
    # As docs/notify.md tells a receiver to do it.
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_without_a_secret_nothing_is_signed() -> None:
    with hook() as server:
        assert deliver(server.url).delivered
    assert "webhook-signature" not in server.requests[0].headers


def test_a_secret_may_be_written_as_the_base64_of_the_key() -> None:
    key = bytes(range(200, 224))  # without white space at its ends, which is none of a key that stands for itself
    assert key_of(b"whsec_" + base64.b64encode(key) + b"\n") == key
    assert key_of(b" s3cret\n") == b"s3cret"
    # The example that the implementations of Standard Webhooks are checked with.
    known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    secret, identity = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert sign(key_of(secret), identity, 1614265330, b'{"test": 2432232314}') == known


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"whsec_\n", "is empty"),
        (b"whsec_?", "is no base64 after whsec_"),
        (b"whsec_QUI", "is no base64 after whsec_"),
        (b"whsec_QU JD", "is no base64 after whsec_"),
        ("whsec_ü".encode(), "is no base64 after whsec_"),
    ],
)
def test_what_is_no_key_signs_nothing(secret: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        key_of(secret)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (200, Outcome(True)),
        (202, Outcome(True)),
        (302, Outcome(False, "answered HTTP 302")),
        (308, Outcome(False, "answered HTTP 308")),  # by which a POST would be one elsewhere too
        (400, Outcome(False, "answered HTTP 400", refused=True)),
        (401, Outcome(False, "answered HTTP 401")),
        (429, Outcome(False, "answered HTTP 429")),
        (500, Outcome(False, "answered HTTP 500")),
    ],
)
def test_only_an_answer_that_says_so_is_a_delivery(code: int, outcome: Outcome) -> None:
    with hook([code]) as server:
        assert deliver(server.url) == outcome
        assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_not_asked() -> None:
    with hook() as server, hook() as proxy:
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY")
        environment = {**base_environment(os.environ), **dict.fromkeys(names, proxy.url)}
        assert deliver(server.url, b"s3cret", environment) == Outcome(True)
        assert (len(server.requests), proxy.requests) == (1, [])


def test_what_cannot_be_reached_is_told_without_the_url() -> None:
    port = free_port()
    outcome = deliver(f"http://127.0.0.1:{port}/t0ken")
    assert outcome.why.startswith("curl exited 7: curl: (7) Failed to connect to 127.0.0.1")
    assert "t0ken" not in outcome.why


def test_without_curl_it_says_what_to_install() -> None:
    outcome = deliver("https://127.0.0.1/", environment={"PATH": "/nowhere"})
    assert outcome.why.endswith("webhooks go by curl (apt-get install curl)")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*words, "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    with file.open("a") as both:
        both.write(Path(f"{file}.crt").read_text())
    return file


def test_tls_is_verified_by_what_the_host_trusts(certificate: Path) -> None:
    with hook(certificate=certificate) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        refused = deliver(url)
        assert refused.why.startswith("curl exited 60: ")
        trusting = {**base_environment(os.environ), "CURL_CA_BUNDLE": f"{certificate}.crt"}
        assert deliver(url, environment=trusting) == Outcome(True)
        assert [request.body for request in server.requests] == [BODY]


def test_neither_the_url_nor_a_signature_is_in_the_list_of_processes(tmp_path: Path) -> None:
    (tmp_path / "curl").write_text('#!/bin/sh\ntr "\\0" " " < /proc/$$/cmdline > "$0.seen"\nexit 3\n')
    (tmp_path / "curl").chmod(0o755)
    outcome = deliver("https://h.example.org/t0ken", b"x", {"PATH": f"{tmp_path}:/bin"})
    assert outcome.why == "curl exited 3"
    assert "t0ken" not in (tmp_path / "curl.seen").read_text()
    assert "--disable --config /proc/self/fd/" in (tmp_path / "curl.seen").read_text()


def test_a_file_of_the_users_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".curlrc").write_text('url = "file:///etc/passwd"\nfail\nheader = "X-Evil: 1"\n')
    with hook() as server:
        assert deliver(server.url, environment={**base_environment(os.environ), "HOME": str(tmp_path)}).delivered
        assert "x-evil" not in server.requests[0].headers
