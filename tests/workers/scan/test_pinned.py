"""What names and files of targets mean when a scan begins."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest

from agent.errors import AgentError, ConfigurationError, ScanFailure
from agent.workers.scan.pinned import MOST_OF_A_NAME, Pinned, pin


def pinned(targets: Iterable[str], key: Literal["targets", "exclude"] = "targets") -> Pinned:
    return asyncio.run(pin(targets, key))


def failure(targets: Iterable[str], kind: type[AgentError], key: Literal["targets", "exclude"] = "targets") -> str:
    with pytest.raises(kind) as error:
        pinned(targets, key)
    return str(error.value)


def test_names_and_files_become_addresses(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("10.0.0.1-3  # desks\nlocalhost\n10.9.0.0/24\n")
    found = pinned(["10.0.0.7", f"file:{tmp_path}/hosts"])
    assert found.targets[:2] == ("10.0.0.7", "10.0.0.1-10.0.0.3")
    assert set(found.targets[2:]) <= {"127.0.0.1", "::1", "10.9.0.0/24"}
    assert "10.9.0.0/24" in found.targets
    assert found.single == {"10.0.0.7", *(found.targets[2:-1])}
    assert set(found.names.values()) == {"localhost"}


def test_a_file_is_read_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("10.0.0.1\n")
    assert pinned([f"file:{tmp_path}/hosts"]).targets == ("10.0.0.1",)
    (tmp_path / "hosts").write_text("10.0.0.2\n")
    assert pinned([f"file:{tmp_path}/hosts"]).targets == ("10.0.0.2",)


def test_what_cannot_be_known_fails_in_one_line_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("10.0.0.1\n-oN /tmp/x\n")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2 * 1024 * 1024)
    for key in ("targets", "exclude"):
        assert failure(["no-such-host.invalid"], ScanFailure, key).startswith(
            f"{key}: no-such-host.invalid cannot be resolved: "
        )
        assert failure([f"file:{tmp_path}/wrong"], ConfigurationError, key).startswith(
            f'{key}: {tmp_path}/wrong:2: "-oN /tmp/x" is no address'
        )
        assert failure([f"file:{tmp_path}/huge"], ConfigurationError, key).endswith("has more than 1048576 bytes")
        assert failure([f"file:{tmp_path}"], ConfigurationError, key).startswith(f"{key}: {tmp_path} ")
        assert failure([f"file:{tmp_path}/none"], ConfigurationError, key).endswith("No such file or directory")


def test_of_an_excluded_name_all_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{number}", 0)) for number in range(1, 40)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_words, **_more: answers)  # no resolver here has such a name
    assert len(pinned(["many.example.org"]).targets) == MOST_OF_A_NAME
    assert len(pinned(["many.example.org"], "exclude").targets) == 39
