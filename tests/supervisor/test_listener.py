"""What a service's processes say is heard, all of it, and from nobody else."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.supervisor.listener import Ear, Listener
from agent.supervisor.notices import Notice
from tests.linux.processes import BECOME_NOBODY
from tests.supervisor.conftest import descriptors, until


@pytest.fixture
def heard() -> list[Notice]:
    return []


@pytest.fixture
def listener(loop: asyncio.AbstractEventLoop, tmp_path: Path, heard: list[Notice]) -> Listener:
    return Listener(loop, tmp_path / "x.notify", heard.append)


def say(address: str, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), address)


def test_a_message_is_heard_in_the_loop(
    listener: Listener, loop: asyncio.AbstractEventLoop, heard: list[Notice]
) -> None:
    say(listener.open(os.getuid()), "READY=1\nSTATUS=serving")
    until(loop, lambda: heard)
    assert heard == [Notice(ready=True, status="serving")]
    listener.close()


def test_hearing_out_leaves_nothing_for_the_next_run(listener: Listener, heard: list[Notice]) -> None:
    address = listener.open(os.getuid())
    said = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        while said < 1000:
            try:
                sender.sendto(b"READY=1", address)
            except BlockingIOError:
                break
            said += 1
    listener.hear_out()
    assert len(heard) == said
    assert not listener.hear()
    listener.close()


def test_a_stranger_is_not_listened_to(
    listener: Listener, loop: asyncio.AbstractEventLoop, heard: list[Notice], tmp_path: Path
) -> None:
    address = listener.open(os.getuid())
    # As if somebody had opened the socket to everybody: the mode of its file is not all that guards it.
    for directory in (tmp_path, *tmp_path.parents):
        if directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    Path(address).chmod(0o666)
    program = f"""
import os, socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
{BECOME_NOBODY}
sender.sendto(b"READY=1", {address!r})
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    say(address, "STATUS=the last one")
    until(loop, lambda: heard)
    assert heard == [Notice(status="the last one")]
    listener.close()


def test_it_is_opened_once_and_anew_when_its_file_is_gone_or_its_user_another(
    listener: Listener, loop: asyncio.AbstractEventLoop, heard: list[Notice]
) -> None:
    before = descriptors()
    address = listener.open(os.getuid())
    inode = Path(address).stat().st_ino
    assert Path(listener.open(os.getuid())).stat().st_ino == inode
    Path(address).unlink()
    say(listener.open(os.getuid()), "READY=1")
    until(loop, lambda: heard)
    listener.open(65534)
    assert Path(address).stat().st_uid == 65534
    assert descriptors() == before + 1
    listener.close()
    listener.close()
    assert not Path(address).exists()
    assert descriptors() == before


def test_another_program_hears_what_was_said_while_nobody_listened(
    listener: Listener, loop: asyncio.AbstractEventLoop, heard: list[Notice], tmp_path: Path
) -> None:
    assert listener.freeze() is None
    before = descriptors()
    address = listener.open(os.getuid())
    ear = msgspec.json.decode(msgspec.json.encode(listener.freeze()), type=Ear)
    loop.remove_reader(ear.fd)
    assert listener._receiver is not None
    listener._receiver._socket.detach()  # as execve(2) leaves it
    for number in range(3):
        say(address, f"STATUS={number}")
    later: list[Notice] = []
    follows = Listener(loop, tmp_path / "x.notify", later.append)
    follows.thaw(ear)
    until(loop, lambda: len(later) == 3)
    assert [notice.status for notice in later] == ["0", "1", "2"]
    assert follows.open(os.getuid()) == address, "the same user is listened to on the same socket"
    assert follows.freeze() == ear
    other = follows.open(65534)
    assert Path(other).stat().st_uid == 65534
    follows.close()
    assert (descriptors(), heard) == (before, [])
    assert not Path(address).exists()


def test_another_program_makes_a_new_socket_when_the_file_is_gone(
    listener: Listener, loop: asyncio.AbstractEventLoop, tmp_path: Path, heard: list[Notice]
) -> None:
    address = listener.open(os.getuid())
    ear = listener.freeze()
    assert ear is not None
    loop.remove_reader(ear.fd)
    assert listener._receiver is not None
    listener._receiver._socket.detach()
    Path(address).unlink()
    follows = Listener(loop, tmp_path / "x.notify", heard.append)
    follows.thaw(ear)
    say(follows.open(os.getuid()), "READY=1")
    until(loop, lambda: heard)
    follows.close()
