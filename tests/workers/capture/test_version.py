"""Which program may touch a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import AgentError, ConfigurationError, StorageFailure
from agent.workers.capture import version


def test_a_store_of_this_version_is_ours_and_one_without_is_too(tmp_path: Path) -> None:
    assert not version.check(tmp_path / "nowhere")
    assert not version.check(tmp_path)
    version.mark(tmp_path)
    assert version.check(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"version": 2}', "is of version 2, and this program knows 1"),
        (b'{"version": 99999999999999999999}', "is of version 9{20}"),
        (b'{"version": 0}', "says no version"),
        (b'{"version": "1"}', "says no version"),
        (b"{}", "says no version"),
        (b"", "says no version"),
        (b"\xff\x00", "says no version"),
        (b"[" * 4000, "says no version"),
    ],
)
def test_any_other_is_refused_in_one_line(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "store.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=what) as refused:
        version.check(tmp_path)
    assert str(refused.value).isprintable()


def test_what_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "store.json").symlink_to("/etc/passwd")
    with pytest.raises(StorageFailure):
        version.check(tmp_path)
    assert issubclass(StorageFailure, AgentError)
