from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import sdnotify
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import RuntimeFailure
from agent.linux import notify
from agent.linux.notify import Notification, NotifyReceiver, SystemdNotifier, parse_fields
from tests.linux.processes import BECOME_NOBODY, open_fds, readable


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[NotifyReceiver]:
    found = NotifyReceiver(tmp_path / "api.notify")
    yield found
    found.close()


@pytest.fixture
def notifier(receiver: NotifyReceiver) -> Iterator[SystemdNotifier]:
    found = SystemdNotifier({"NOTIFY_SOCKET": receiver.address})
    yield found
    found.close()


@pytest.fixture
def sender(receiver: NotifyReceiver) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.connect(receiver.address)
        yield found


def only(receiver: NotifyReceiver) -> dict[str, str]:
    (notification,) = receiver.receive()
    return notification.fields


def test_a_message_comes_with_its_sender(receiver: NotifyReceiver, sender: socket.socket) -> None:
    assert not readable(receiver.fd, 0)
    sender.send(b"READY=1\nSTATUS=up, all of it\n")
    assert readable(receiver.fd)
    expected = Notification({"READY": "1", "STATUS": "up, all of it"}, os.getpid(), os.geteuid())
    assert receiver.receive() == [expected]
    assert receiver.receive() == []


def test_the_real_systemd_notify_is_understood_and_its_barrier_lifted(receiver: NotifyReceiver) -> None:
    command = ["systemd-notify", "--ready", "--status=listening", "X_AGENT=seen"]
    environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": receiver.address}
    with subprocess.Popen(command, env=environment) as told:
        received: list[Notification] = []
        while not any("BARRIER" in each.fields for each in received):
            assert readable(receiver.fd), received
            received += receiver.receive()
        assert told.wait(timeout=10) == 0  # it waits until the descriptor it sent is closed
    assert received[0].fields == {"READY": "1", "STATUS": "listening", "X_AGENT": "seen"}
    assert received[0].uid == os.geteuid()


def test_anybody_may_send_and_is_named(tmp_path: Path) -> None:
    directory = Path("/tmp") / f"agent-notify-{os.getpid()}"  # pytest's own is closed to others
    directory.mkdir(mode=0o755)
    receiver = NotifyReceiver(directory / "n")
    try:
        script = (
            "import socket\n"
            f"{BECOME_NOBODY}\n"
            f"socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', {receiver.address!r})"
        )
        subprocess.run([sys.executable, "-c", script], check=True)
        (found,) = receiver.receive()
        assert found.uid == 65534
    finally:
        receiver.close()
        directory.rmdir()


def test_descriptors_that_come_along_are_closed(receiver: NotifyReceiver, sender: socket.socket) -> None:
    before = open_fds()
    reading, writing = os.pipe()
    rights = array.array("i", [writing] * 200)
    sender.sendmsg([b"FDSTORE=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os.close(writing)
    assert only(receiver) == {"FDSTORE": "1"}
    assert os.read(reading, 1) == b""  # all ends that were sent are closed
    os.close(reading)
    assert open_fds() == before


def test_messages_that_are_too_long_or_not_text_are_dropped(receiver: NotifyReceiver, sender: socket.socket) -> None:
    for message in (b"STATUS=" + b"x" * (32768 - 6), b"STATUS=\xff", b"", b"\0", b"no equals sign", b"READY=1"):
        sender.send(message)
    assert only(receiver) == {"READY": "1"}
    sender.send(b"STATUS=" + b"x" * 8185)
    assert only(receiver) == {"STATUS": "x" * 8185}


def test_a_flood_is_read_in_batches(receiver: NotifyReceiver, sender: socket.socket) -> None:
    sender.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sender.send(b"WATCHDOG=1")
            sent += 1
    received = 0
    while readable(receiver.fd, 0):
        batch = len(receiver.receive())
        assert 0 < batch <= 64
        received += batch
    assert received == sent


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_message_breaks_the_parser_or_a_terminal(data: bytes) -> None:
    for name, value in parse_fields(data).items():
        assert name.replace("_", "").isalnum()
        assert all(character.isprintable() for character in value)


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z_]{0,9}", fullmatch=True), st.text(max_size=20)))
def test_fields_survive_the_way(fields: dict[str, str]) -> None:
    told = "".join(f"{name}={' '.join(value.splitlines())}\n" for name, value in fields.items())
    expected = {
        name: "".join(each if each.isprintable() else " " for each in " ".join(value.splitlines()))
        for name, value in fields.items()
    }
    assert parse_fields(told.encode("utf-8", "surrogatepass")) == expected


def test_the_socket_file_is_open_to_all_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "n"
    before = os.umask(0o077)
    try:
        receiver = NotifyReceiver(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666
    receiver.close()
    receiver.close()
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_any_other_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "n"
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    stale.bind(str(path))
    stale.close()
    NotifyReceiver(path).close()
    path.write_text("precious")
    with pytest.raises(RuntimeFailure, match="cannot be bound as notification socket: Address already in use"):
        NotifyReceiver(path)
    assert path.read_text() == "precious"
    with pytest.raises(RuntimeFailure, match="No such file or directory"):
        NotifyReceiver(tmp_path / "absent" / "n")


def test_below_a_path_too_long_for_others_the_socket_is_abstract(tmp_path: Path) -> None:
    receiver = NotifyReceiver(tmp_path / ("x" * 200) / "api.notify")
    assert receiver.address.startswith("@agent-")
    notifier = SystemdNotifier({"NOTIFY_SOCKET": receiver.address})
    assert notifier.ready()
    assert only(receiver) == {"READY": "1"}
    notifier.close()
    receiver.close()


def test_without_a_socket_nothing_is_sent() -> None:
    notifier = SystemdNotifier({})
    assert notifier.watchdog_interval is None
    assert not any([notifier.ready(), notifier.status("x"), notifier.watchdog(), notifier.stopping()])


def test_what_systemd_gave_us_is_taken_out_of_the_environment(receiver: NotifyReceiver) -> None:
    environ = {
        "NOTIFY_SOCKET": receiver.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    notifier = SystemdNotifier(environ)
    assert environ == {"HOME": "/"}
    assert "NOTIFY_SOCKET" not in os.environ
    assert notifier.watchdog_interval == 15.0
    notifier.close()
    notifier.close()
    assert not notifier.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("10000000", "", 5.0),
        ("10000000", "1", None),
        ("0", "", None),
        ("-5", "", None),
        ("soon", "", None),
        ("10000000", "me", None),
        ("", "", None),
    ],
)
def test_a_watchdog_that_is_not_for_us_is_not_fed(usec: str, pid: str, interval: float | None) -> None:
    assert SystemdNotifier({"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}).watchdog_interval == interval


def test_the_watchdog_of_a_bundles_bootloader_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getppid())}
    assert SystemdNotifier(dict(environ)).watchdog_interval is None
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert SystemdNotifier(dict(environ)).watchdog_interval == 2.0


def test_each_message_is_spelled_as_systemd_wants_it(receiver: NotifyReceiver, notifier: SystemdNotifier) -> None:
    before = time.monotonic_ns() // 1000
    for send in (notifier.ready, notifier.stopping, notifier.watchdog, notifier.reloading):
        assert send()
    assert notifier.ready("3 of 3 services run")
    assert notifier.status("one\nREADY=1")
    assert notifier.extend_timeout(8_000_000)
    received = [each.fields for each in receiver.receive()]
    after = time.monotonic_ns() // 1000
    assert before <= int(received[3].pop("MONOTONIC_USEC")) <= after
    assert received == [
        {"READY": "1"},
        {"STOPPING": "1"},
        {"WATCHDOG": "1"},
        {"RELOADING": "1"},
        {"READY": "1", "STATUS": "3 of 3 services run"},
        {"STATUS": "one READY=1"},
        {"EXTEND_TIMEOUT_USEC": "8000000"},
    ]


@pytest.mark.parametrize("text", ["café ✓", "\udc80 broken", "x" * 20_000])
def test_any_text_arrives_although_sdnotify_speaks_latin_1(
    receiver: NotifyReceiver, notifier: SystemdNotifier, text: str
) -> None:
    assert notifier.status(text)
    status = only(receiver)["STATUS"]
    assert status == text.encode("utf-8", "replace").decode()[: 32768 - len("STATUS=")]


def test_a_listener_that_died_or_never_was_does_no_harm(
    tmp_path: Path, receiver: NotifyReceiver, notifier: SystemdNotifier
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # sdnotify does not close what it could not connect
        assert not SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "absent")}).ready()
    receiver.close()
    assert not notifier.ready()


def test_a_listener_that_does_not_read_holds_us_up_for_a_bounded_time(
    receiver: NotifyReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_SEND_TIMEOUT", 0.05)
    notifier = SystemdNotifier({"NOTIFY_SOCKET": receiver.address})
    before = time.monotonic()
    while notifier.watchdog():
        assert time.monotonic() - before < 10
    assert receiver.receive() != []
    notifier.close()


def test_leaving_from_a_signal_handler_while_we_send_is_not_swallowed(notifier: SystemdNotifier) -> None:
    """sdnotify catches everything; told to raise instead, it lets an exit be an exit."""

    def leave(*_: object) -> None:
        raise SystemExit(3)

    before = signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(SystemExit):
            while notifier.watchdog():  # nobody reads: soon it waits for room, and that is where the signal finds it
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_sdnotify_is_what_sends(notifier: SystemdNotifier) -> None:
    assert isinstance(notifier._notifier, sdnotify.SystemdNotifier)


def test_with_an_owner_nobody_else_may_send(tmp_path: Path) -> None:
    path = tmp_path / "owned.notify"
    receiver = NotifyReceiver(path, owner=65534)
    try:
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (65534, 0o600)
    finally:
        receiver.close()


# -- a program that follows another in its process --------------------------------------------------------------------


def test_what_systemd_gave_us_is_kept_for_whoever_follows(receiver: NotifyReceiver) -> None:
    given = {"NOTIFY_SOCKET": receiver.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}
    notifier = SystemdNotifier({**given, "HOME": "/"})
    assert notifier.environment == given
    notifier.close()
    assert SystemdNotifier({"HOME": "/"}).environment == {}


def test_a_descriptor_is_stored_under_its_name_and_taken_out_again(
    receiver: NotifyReceiver, notifier: SystemdNotifier
) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"last words")
        assert notifier.store("output", reading)
        with socket.socket(fileno=os.dup(receiver.fd)) as systemd:
            message, ancillary, _, _ = systemd.recvmsg(8192, 1024)
        assert message == b"FDSTORE=1\nFDNAME=output\nFDPOLL=0"
        (copy,) = [array.array("i", data)[0] for _, kind, data in ancillary if kind == socket.SCM_RIGHTS]
        assert os.read(copy, 100) == b"last words"
        os.close(copy)
    finally:
        os.close(reading)
        os.close(writing)
    assert notifier.unstore("output")
    assert only(receiver) == {"FDSTOREREMOVE": "1", "FDNAME": "output"}


def test_a_manager_that_takes_nothing_costs_a_moment(receiver: NotifyReceiver, notifier: SystemdNotifier) -> None:
    assert not SystemdNotifier({}).store("output", 0)
    begun = time.monotonic()
    while notifier.store("output", 0):  # until its queue is full
        assert time.monotonic() - begun < 5
    assert time.monotonic() - begun < 3
    receiver.close()
    assert not notifier.store("output", 0)


def test_a_socket_is_adopted_with_what_was_said_in_between(tmp_path: Path) -> None:
    first = NotifyReceiver(tmp_path / "n", owner=os.geteuid())
    said = SystemdNotifier({"NOTIFY_SOCKET": first.address})
    said.status("meanwhile")
    fd = os.dup(first.fd)
    first._socket.close()  # as execve(2) leaves it: the file stays, and so does what is inherited
    second = NotifyReceiver.adopt(fd, tmp_path / "n", first.address)
    assert (second.fd, second.address) == (fd, first.address)
    (notification,) = second.receive()
    assert notification == Notification({"STATUS": "meanwhile"}, os.getpid(), os.geteuid())
    assert second.receive() == []
    said.ready()
    assert only(second) == {"READY": "1"}
    second.close()
    assert not (tmp_path / "n").exists()
    said.close()


def test_an_adopted_socket_without_a_file_leaves_other_files_alone(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200) / "n"
    first = NotifyReceiver(path)
    path.parent.mkdir()
    path.write_text("precious")
    fd = os.dup(first.fd)
    first._socket.close()
    NotifyReceiver.adopt(fd, path, first.address).close()
    assert path.read_text() == "precious"


def test_what_is_no_socket_cannot_be_adopted(tmp_path: Path) -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            NotifyReceiver.adopt(fd, tmp_path / "n", "n")
        os.fstat(fd)
    finally:
        os.close(fd)
