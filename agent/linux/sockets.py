"""Unix sockets at any path: also below a prefix that is too long for ``sun_path``, unix(7)."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import RuntimeFailure

SUN_PATH_LIMIT = 107  # bytes: 108 in linux/un.h, one of them the final NUL
_BACKLOG = 128
_SYSTEMD = Path("/run/systemd/system")  # exists when systemd runs the machine, sd_booted(3)

_ANOTHER = "another process listens there already"
_OF_SYSTEMD = (
    "systemd listens there already (agent.socket): `systemctl start agent` has systemd run the agent, "
    "`systemctl stop agent.socket` leaves it to you"
)


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """An address for ``bind`` or ``connect`` that means ``path`` and fits ``sun_path`` while the block runs.

    A long path is spelled through a descriptor of its directory: ``/proc/self/fd/N/name``. Raises ``OSError`` when the
    directory cannot be opened or the file name alone is too long.
    """
    if len(os.fsencode(path)) <= SUN_PATH_LIMIT:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        address = f"/proc/self/fd/{directory}/{path.name}"
        if len(os.fsencode(address)) > SUN_PATH_LIMIT:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
        yield address
    finally:
        os.close(directory)


def bind_unix(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """A non-blocking socket of that kind bound to ``path``, its file with exactly that ``mode``.

    Nobody can slip in between bind and chmod: the kernel creates the file with the mode of the socket's own inode
    (less the umask), which is set first. Raises ``OSError``.
    """
    bound = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(bound.fileno(), mode)
        with reachable(path) as address:
            bound.bind(address)
        path.chmod(mode)
    except BaseException:
        bound.close()
        raise
    return bound


def listen_unix(path: Path, mode: int) -> socket.socket:
    """A listening, non-blocking stream socket at ``path`` with that file mode.

    A socket file that nobody listens on any more is replaced; one that somebody does is never touched. Raises
    ``RuntimeFailure`` for that, for a file that is no socket, and for whatever the file system refuses.
    """
    try:
        if holder := _holder(path):
            raise RuntimeFailure(f"{path}: {holder}")
        with suppress(FileNotFoundError):
            path.unlink()
        listening = bind_unix(path, socket.SOCK_STREAM, mode)
    except OSError as error:
        raise RuntimeFailure(f"{path}: cannot listen there: {error.strerror}") from error
    listening.listen(_BACKLOG)
    return listening


def connect_unix(path: Path, timeout: float) -> socket.socket:
    """A stream socket connected to ``path``, with that timeout in seconds on every operation.

    Raises ``OSError``: ``FileNotFoundError`` and ``ConnectionRefusedError`` when nobody listens, ``PermissionError``,
    ``TimeoutError``, and so on.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(timeout)
    try:
        with reachable(path) as address:
            connected.connect(address)
    except BaseException:
        connected.close()
        raise
    return connected


def _holder(path: Path) -> str:
    """Who listens on the socket file at ``path``, and what to do; empty when nobody does.

    Raises ``RuntimeFailure`` if it is no socket.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise RuntimeFailure(f"{path}: is in the way and no socket; move it aside")
    except FileNotFoundError:
        return ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe, reachable(path) as address:
        try:
            probe.connect(address)
        except BlockingIOError:
            return _ANOTHER  # its backlog is full: busy, and very much alive
        except ConnectionRefusedError:
            return ""
        from agent.linux.peercred import peer_credentials  # not for a client: a fiftieth of `agentctl status`

        listener = peer_credentials(probe).pid
    return _OF_SYSTEMD if _SYSTEMD.is_dir() and _is_for_systemd(listener) else _ANOTHER


def _is_for_systemd(listener: int) -> bool:
    """Whether a socket on which this process was the last to call listen(2) is systemd's.

    That may have been an agent, which has ended since: a socket that outlives it is held by who gave it to the agent.
    """
    if listener in (0, 1):
        return True
    try:
        os.kill(listener, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
