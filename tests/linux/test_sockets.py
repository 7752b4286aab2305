from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.linux import peercred, sockets
from agent.linux.peercred import PeerCredentials
from agent.linux.sockets import SUN_PATH_LIMIT, connect_unix, listen_unix, reachable
from tests.linux.processes import open_fds


@pytest.fixture(params=["short", "long"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a socket may have to be: also below a directory with a name that fits no socket address."""
    if request.param == "short":
        assert len(str(tmp_path / "s")) <= SUN_PATH_LIMIT
        return tmp_path / "s"
    directory = tmp_path / ("x" * 150)
    directory.mkdir()
    return directory / "agent.sock"


def test_what_is_said_arrives(path: Path) -> None:
    before = open_fds()
    with listen_unix(path, 0o660) as listening:
        assert not listening.getblocking()
        with connect_unix(path, 5) as client:
            server, _ = listening.accept()
            with server:
                client.sendall(b"hello")
                assert server.recv(5) == b"hello"
            assert client.gettimeout() == 5
    assert open_fds() == before


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_file_mode_is_exact_whatever_the_umask(path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with listen_unix(path, mode):
            assert path.stat().st_mode & 0o7777 == mode
    finally:
        os.umask(before)


def test_at_no_instant_may_more_people_connect_than_in_the_end(path: Path) -> None:
    """The kernel gives the file the mode of the socket's own inode: seen before the chmod that follows."""
    seen: list[int] = []
    real = Path.chmod

    def chmod(self: Path, mode: int) -> None:
        seen.append(self.stat().st_mode & 0o777)
        real(self, mode)

    before = os.umask(0)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "chmod", chmod)
            listen_unix(path, 0o600).close()
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_live_socket_is_never_taken_over(path: Path) -> None:
    with listen_unix(path, 0o600):
        inode = path.stat().st_ino
        with pytest.raises(RuntimeFailure, match="another process listens there already"):
            listen_unix(path, 0o600)
        assert path.stat().st_ino == inode


def test_a_listener_that_is_too_busy_to_accept_is_alive(path: Path) -> None:
    with listen_unix(path, 0o600) as listening:
        listening.listen(0)
        waiting = []
        with pytest.raises(BlockingIOError), reachable(path) as address:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                waiting[-1].connect(address)
        with pytest.raises(RuntimeFailure, match="another process listens there already"):
            listen_unix(path, 0o600)
        for each in waiting:
            each.close()


def test_one_that_systemd_listens_on_is_told_with_the_units_to_turn_to(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_SYSTEMD", tmp_path)
    with listen_unix(path, 0o600):
        with pytest.raises(RuntimeFailure, match="another process listens there already"):
            listen_unix(path, 0o600)
        with subprocess.Popen(["true"]) as ended:
            pass
        for listener in (1, ended.pid):
            monkeypatch.setattr(peercred, "peer_credentials", lambda _, pid=listener: PeerCredentials(pid, 0, 0))
            with pytest.raises(RuntimeFailure, match=r"systemd listens .*`systemctl start agent`.*`systemctl stop"):
                listen_unix(path, 0o600)


def test_a_stale_socket_is_replaced(path: Path) -> None:
    listen_unix(path, 0o600).close()
    assert path.is_socket()
    with listen_unix(path, 0o600), connect_unix(path, 5):
        pass


def test_what_is_no_socket_is_not_touched(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(RuntimeFailure, match="is in the way and no socket; move it aside"):
        listen_unix(path, 0o600)
    assert path.read_text() == "precious"
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(RuntimeFailure, match="is in the way and no socket"):
        listen_unix(path, 0o600)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "s", tmp_path / ("x" * 150) / "s"):
        with pytest.raises(RuntimeFailure, match="cannot listen there: No such file or directory"):
            listen_unix(path, 0o600)
        with pytest.raises(FileNotFoundError):
            connect_unix(path, 1)


def test_a_file_name_that_no_address_holds_is_told(tmp_path: Path) -> None:
    before = open_fds()
    with pytest.raises(RuntimeFailure, match="cannot listen there: File name too long"):
        listen_unix(tmp_path / ("x" * 120), 0o600)
    assert open_fds() == before


def test_nobody_listening_is_told_apart_from_silence(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_unix(path, 1)
    listening = listen_unix(path, 0o600)
    with connect_unix(path, 0.02) as client, pytest.raises(TimeoutError):
        client.recv(1)
    listening.close()
    with pytest.raises(ConnectionRefusedError):
        connect_unix(path, 1)


def test_many_may_connect_at_once(path: Path) -> None:
    with listen_unix(path, 0o600):
        failures: list[OSError] = []

        def connect() -> None:
            try:
                connect_unix(path, 5).close()
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=connect) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
