"""An account is read back as it was stored, and whatever else lies in its place is none."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.capture import account
from agent.workers.capture.account import Account

instants = st.integers(0, 2**63 - 1)
ACCOUNT = Account(interface="eth0", opened=1, closed=2, written=3, bytes=4, reason="size", filter="not port 22")


@given(instants, st.integers(0, 2**48), st.text(max_size=100))
def test_an_account_is_read_back_as_it_was_stored(first: int, second: int, filter_: str) -> None:
    stored = msgspec.structs.replace(ACCOUNT, opened=first, received=second, lag=first, filter=filter_)
    path = Path(f"/dev/shm/account-{os.getpid()}.meta")
    account.write(path, stored)
    try:
        assert account.read(path) == stored
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.stat().st_size <= account.LONGEST
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"interface": "\xff"}',
        b'{"x":' + b"[" * 60_000,
        msgspec.json.encode(ACCOUNT)[:-1],
        msgspec.json.encode(ACCOUNT).replace(b'"written":3', b'"written":"3"'),
        msgspec.json.encode(ACCOUNT).replace(b'"written":3', b'"written":3.5'),
        msgspec.json.encode(ACCOUNT).replace(b'"written":3', b'"written":-3'),
        msgspec.json.encode(ACCOUNT).replace(b'"opened":1', b'"opened":-1'),
        msgspec.json.encode(ACCOUNT).replace(b'"closed":2', b'"closed":1%030d' % 0),
        msgspec.json.encode(ACCOUNT).replace(b'"received":0', b'"received":-1%030d' % 0),
        b" " * account.LONGEST + msgspec.json.encode(ACCOUNT),
    ],
)
def test_what_cannot_be_understood_is_no_account(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "one.meta"
    path.write_bytes(content)
    assert account.read(path) is None


def test_what_is_no_file_is_no_account(tmp_path: Path) -> None:
    """A pipe is not waited for, a link not followed."""
    path = tmp_path / "one.meta"
    assert account.read(path) is None
    account.write(path, ACCOUNT)
    (tmp_path / "link.meta").symlink_to(path)
    os.mkfifo(tmp_path / "pipe.meta")
    (tmp_path / "directory.meta").mkdir()
    for name in ("link.meta", "pipe.meta", "directory.meta", "one.meta/below.meta"):
        assert account.read(tmp_path / name) is None
    assert account.read(path) == ACCOUNT


def test_an_account_of_a_later_version_is_understood_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "one.meta"
    later = {**msgspec.to_builtins(ACCOUNT), "version": 2, "colour": ["blue"]}
    path.write_bytes(msgspec.json.encode(later))
    assert account.read(path) == msgspec.structs.replace(ACCOUNT, version=2)


def test_an_account_that_cannot_be_stored_is_a_failure_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure):
        account.write(tmp_path / "gone" / "one.meta", ACCOUNT)
