from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.linux.peercred import PeerCredentials, groups_of, is_member, peer_credentials
from agent.linux.sockets import listen_unix

CONNECT = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
os.setgroups({groups!r})
os.setgid({gid})
os.setuid({uid})
connection.connect({address!r})
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def peer(tmp_path: Path, uid: int, gid: int, groups: list[int]) -> tuple[PeerCredentials, int]:
    """What is seen of a process with those ids, and its PID."""
    tmp_path.chmod(0o755)
    with listen_unix(tmp_path / "s", 0o666) as listening:
        script = CONNECT.format(uid=uid, gid=gid, groups=groups, address="s")
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
        ) as child:
            assert child.stdout is not None
            pid = int(child.stdout.readline())
            connection, _ = listening.accept()
            with connection:
                found = peer_credentials(connection)
            child.communicate()
    return found, pid


def test_the_peer_is_known_with_all_its_groups(tmp_path: Path) -> None:
    found, pid = peer(tmp_path, 65534, 65533, [7, 8, 9])
    assert found == PeerCredentials(pid, 65534, 65533, (7, 8, 9))


def test_groups_are_those_the_peer_has_not_those_it_could_have(tmp_path: Path) -> None:
    found, _ = peer(tmp_path, 0, 0, [])
    assert found.groups == ()


def test_more_groups_than_fit_are_asked_of_the_user_database(tmp_path: Path) -> None:
    found, _ = peer(tmp_path, 65534, 65534, list(range(1000, 1400)))
    assert found.groups == groups_of(65534, 65534)
    assert len(found.groups) < 400


def test_our_own_end_is_ourselves() -> None:
    one, other = socket.socketpair()
    with one, other:
        found = peer_credentials(one)
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())


def test_a_socket_without_a_peer_to_name_is_an_error() -> None:
    with socket.socket(socket.AF_INET) as inet:
        found = peer_credentials(inet)
    assert found.uid == 2**32 - 1  # the kernel's "nobody at all": never equal to a user's id
    assert found.groups == ()


def test_a_user_nobody_knows_has_no_groups() -> None:
    assert groups_of(2**32 - 5, 1) == ()
    entry = pwd.getpwnam("nobody")
    assert entry.pw_gid in groups_of(entry.pw_uid, entry.pw_gid)


@pytest.mark.parametrize(
    ("gid", "groups", "expected"), [("daemon", (), True), ("sys", ("daemon",), True), ("sys", (), False)]
)
def test_membership_is_by_primary_or_supplementary_group(gid: str, groups: tuple[str, ...], expected: bool) -> None:
    ids = tuple(grp.getgrnam(name).gr_gid for name in groups)
    assert is_member(PeerCredentials(1, 1, grp.getgrnam(gid).gr_gid, ids), "daemon") is expected


def test_nobody_is_a_member_of_a_group_that_does_not_exist() -> None:
    assert not is_member(PeerCredentials(1, 0, 0, (0,)), "no_such_group")
