"""sd_notify(3), both ways: what children tell us, and what we tell systemd (or a worker tells us)."""

from __future__ import annotations

import array
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import sdnotify

from agent.errors import RuntimeFailure
from agent.linux.give import give, is_socket
from agent.linux.sockets import SUN_PATH_LIMIT, bind_unix

_MESSAGE_LIMIT = 32768  # bytes
_BATCH = 64
_SEND_TIMEOUT = 1.0  # seconds
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid
_FDS_LIMIT = 253  # SCM_MAX_FD of the kernel: descriptors in one message
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_ANCILLARY = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4 * _FDS_LIMIT)


class Notification(NamedTuple):
    """One message: its fields, and the sender as the kernel vouches for it (``pid`` 0: of another PID namespace)."""

    fields: dict[str, str]
    pid: int
    uid: int


class NotifyReceiver:
    """A notification socket for children. ``fd`` polls readable; ``address`` is what goes into NOTIFY_SOCKET.

    Only ``owner`` (a user id) and root may send; without one anybody may. Below a prefix too long for a socket address
    it is an abstract socket with a random name instead, to which anybody can send: who did is in each notification, and
    believing it is the reader's business. Raises ``RuntimeFailure`` when it cannot be bound.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self._path = path if len(os.fsencode(path)) <= SUN_PATH_LIMIT else None
        try:
            if self._path is not None:
                with suppress(FileNotFoundError):
                    if stat.S_ISSOCK(self._path.lstat().st_mode):
                        self._path.unlink()
                self._socket = bind_unix(self._path, socket.SOCK_DGRAM, 0o666 if owner is None else 0o600)
                if owner is not None and owner != os.geteuid():
                    give(self._path, owner, -1, is_socket)
                self.address = str(self._path)
            else:
                self.address = f"@agent-{os.urandom(16).hex()}"
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self._socket.bind("\0" + self.address[1:])
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        except OSError as error:
            raise RuntimeFailure(f"{path}: cannot be bound as notification socket: {error.strerror}") from error
        self.fd = self._socket.fileno()

    @classmethod
    def adopt(cls, fd: int, path: Path, address: str) -> NotifyReceiver:
        """The receiver of an earlier program in this process: its socket, bound already, by its descriptor."""
        made = cls.__new__(cls)
        made._socket = socket.socket(fileno=fd)
        made._socket.setblocking(False)
        made._path = None if address.startswith("@") else path
        made.address, made.fd = address, fd
        return made

    def receive(self) -> list[Notification]:
        """What has arrived, 64 messages at most: the descriptor stays readable when there are more. Never blocks.

        Dropped: messages above 32 KiB, without credentials, or not UTF-8. Descriptors that came along are closed, which
        is also what a sender of BARRIER=1 waits for.
        """
        found = []
        for _ in range(_BATCH):
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(_MESSAGE_LIMIT, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                break
            credentials = _open_ancillary(ancillary)
            if credentials is None or flags & socket.MSG_TRUNC:
                continue
            fields = parse_fields(data)
            if fields:
                found.append(Notification(fields, credentials[0], credentials[1]))
        return found

    def close(self) -> None:
        """Close the socket and remove its file. Twice does no harm."""
        if self.fd >= 0:
            self.fd = -1
            self._socket.close()
            if self._path is not None:
                self._path.unlink(missing_ok=True)


def _open_ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, int] | None:
    """The sender's pid, uid and gid; closes every descriptor that was sent along."""
    credentials = None
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            fds = array.array("i", data[: len(data) - len(data) % 4])
            for fd in fds:
                os.close(fd)
        elif kind == socket.SCM_CREDENTIALS and len(data) >= _UCRED.size:
            credentials = _UCRED.unpack_from(data)
    return credentials


def parse_fields(data: bytes) -> dict[str, str]:
    """``NAME=value`` lines of one message; the last of a name wins, other lines are skipped.

    Empty when the message is not UTF-8. Control characters become spaces: a status ends up on somebody's terminal.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return {}
    fields = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and name.isascii() and name.replace("_", "").isalnum():
            fields[name] = value if value.isprintable() else "".join(c if c.isprintable() else " " for c in value)
    return fields


class SystemdNotifier:
    """Tells whoever started us how we are doing; does nothing when nobody asked for it.

    Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of ``environ``, so that no child inherits them. Each method
    returns whether the message was handed over, and blocks for a second at most.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        taken = {name: environ.pop(name) for name in _VARIABLES if name in environ}
        self.environment = taken
        """What was taken, for the program that this process becomes by execve(2)."""
        address = taken.get("NOTIFY_SOCKET")
        self.watchdog_interval = _watchdog_interval(taken.get("WATCHDOG_USEC", ""), taken.get("WATCHDOG_PID", ""))
        """Call ``watchdog`` this often, in seconds: half the time that we are given. ``None``: no watchdog runs."""
        self._notifier = _connect(address) if address else None

    def notify(self, **fields: str) -> bool:
        """Send fields by name, in one message: ``notify(READY="1", STATUS="…")``. Line ends become spaces."""
        if self._notifier is None:
            return False
        message = "\n".join(f"{name}={' '.join(value.splitlines())}" for name, value in fields.items())
        try:
            # sdnotify encodes as Latin-1. Each byte of UTF-8 read as one Latin-1 character comes out as that byte.
            self._notifier.notify(message.encode("utf-8", "replace")[:_MESSAGE_LIMIT].decode("latin-1"))
        except OSError:
            return False
        return True

    def ready(self, status: str | None = None) -> bool:
        """We are up, or back from reloading."""
        return self.notify(READY="1") if status is None else self.notify(READY="1", STATUS=status)

    def status(self, text: str) -> bool:
        """One line for people."""
        return self.notify(STATUS=text)

    def reloading(self) -> bool:
        """We are reloading; ``ready`` ends it. With the clock reading that Type=notify-reload asks for."""
        return self.notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def stopping(self) -> bool:
        """We are going down."""
        return self.notify(STOPPING="1")

    def watchdog(self) -> bool:
        """We are alive and well."""
        return self.notify(WATCHDOG="1")

    def extend_timeout(self, microseconds: int) -> bool:
        """Give us that much more time to start, reload or stop."""
        return self.notify(EXTEND_TIMEOUT_USEC=str(microseconds))

    def store(self, name: str, fd: int) -> bool:
        """Let systemd keep a descriptor for us, FileDescriptorStoreMax= permitting: it comes back after a crash.

        ``name`` is ASCII without control characters and colons. Not watched for a hang-up (FDPOLL=0), which would drop
        a pipe whose writer has died with something left in it.
        """
        if self._notifier is None:
            return False
        message = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode("ascii")
        try:
            self._notifier.socket.sendmsg([message], [_descriptors([fd])])
        except OSError:
            return False
        return True

    def unstore(self, name: str) -> bool:
        """Have what is stored under that name closed."""
        return self.notify(FDSTOREREMOVE="1", FDNAME=name)

    def close(self) -> None:
        """Say nothing more. Twice does no harm."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None


def _descriptors(fds: list[int]) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes()


def _connect(address: str) -> sdnotify.SystemdNotifier | None:
    """sdnotify's own object. It reads the address from ``os.environ``, and with ``debug`` it raises what it catches."""
    before = os.environ.get("NOTIFY_SOCKET")
    os.environ["NOTIFY_SOCKET"] = address
    try:
        notifier = sdnotify.SystemdNotifier(debug=True)
    except OSError:
        return None
    finally:
        if before is None:
            del os.environ["NOTIFY_SOCKET"]
        else:
            os.environ["NOTIFY_SOCKET"] = before
    notifier.socket.settimeout(_SEND_TIMEOUT)
    return notifier


def _watchdog_interval(microseconds: str, pid: str) -> float | None:
    """Half of WATCHDOG_USEC in seconds, if it is meant for us, sd_watchdog_enabled(3).

    The parent of a one-file bundle is its own bootloader, and that is whom systemd started.
    """
    try:
        timeout = int(microseconds) / 1_000_000
        meant = int(pid) if pid else os.getpid()
    except ValueError:
        return None
    us = {os.getpid()} | ({os.getppid()} if getattr(sys, "frozen", False) else set())
    return timeout / 2 if timeout > 0 and meant in us else None
