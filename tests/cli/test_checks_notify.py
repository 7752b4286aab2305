"""Whether what tells those who are to be told is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import checks_notify
from agent.cli.checks_notify import check_notifications
from agent.declaration.model import AgentSettings, Declaration, Notify


def declared(*notifies: Notify) -> Declaration:
    return Declaration(AgentSettings("host"), {}, notifies={notify.name: notify for notify in notifies})


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def silent() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def told(declaration: Declaration, port: int) -> list[tuple[str, str, str]]:
    return [(check.name, check.verdict, check.finding) for check in check_notifications(declaration, port)]


def test_nobody_to_tell_needs_nothing(silent: int) -> None:
    assert told(declared(), silent) == []


def test_what_is_there_is_named(listening: int, silent: int) -> None:
    everybody = declared(
        Notify("hook", webhook="https://a"), Notify("mail", email="root"), Notify("page", command=("/bin/sh",))
    )
    assert told(everybody, listening) == [
        ("webhooks", "ok", "they go by /usr/bin/curl"),
        ("mail", "ok", f"it goes to port {listening} of this host"),
        ("notify", "ok", "page is told by /bin/sh"),
    ]
    assert told(declared(Notify("mail", email="root")), silent) == [
        ("mail", "ok", f"it goes by /usr/sbin/sendmail, as nobody listens on port {silent} of this host")
    ]


def test_what_is_missing_is_a_failure_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: int
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(checks_notify, "SENDMAIL", str(tmp_path / "sendmail"))
    (tmp_path / "page").touch()
    everybody = declared(
        Notify("hook", webhook="https://a"),
        Notify("mail", email="root"),
        Notify("page", command=(str(tmp_path / "page"),)),
        Notify("gone", command=("no_such_program",)),
    )
    assert told(everybody, silent) == [
        ("webhooks", "fail", "curl is not installed: hook cannot be told"),
        (
            "mail",
            "fail",
            f"nobody listens on port {silent} of this host, and there is no {tmp_path}/sendmail: mail cannot be told",
        ),
        ("notify", "fail", f"{tmp_path}/page cannot be executed: page cannot be told"),
        ("notify", "fail", "no_such_program is not there: gone cannot be told"),
    ]
    assert all(check.mend for check in check_notifications(everybody, silent))
