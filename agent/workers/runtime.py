"""The lifecycle every worker shares: start, run, stop; readiness, heartbeat, figures, exit code.

A worker process is started by the agent as ``worker KIND`` and learns what it is from its environment:
``SERVICE_CONFIG`` (path of its settings as JSON), ``SERVICE_DATA`` (its spool directory), ``SERVICE_NAME``,
``SERVICE_HEARTBEAT_FILE`` and ``NOTIFY_SOCKET``. It talks back only as any third-party program could: by sd_notify
messages, by the age of its heartbeat file and by its exit code.

Nothing here beats on behalf of the worker. ``Context.beat`` is called from the worker's own run loop, so a loop that
hangs goes stale and is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from agent.declaration.model import Capture, Heartbeat, Scan, Watch
from agent.errors import EXIT_OK, EXIT_RUNTIME, AgentError, ConfigurationError, RuntimeFailure
from agent.linux.notify import SystemdNotifier
from agent.telemetry import breakdown
from agent.workers import channel

Figures = Mapping[str, int | float | str | None]

#: Shortest time between two ``STATUS=`` messages, in seconds.
STATUS_INTERVAL = 0.5

#: How long to send nothing, in seconds, after a message that nobody took for so long that the run loop was held up: a
#: hung agent must not cost packets. What is said meanwhile still reaches the log.
DEAF = 10.0

#: A JSON field of a notify message is never longer, in bytes.
FIELD_LIMIT = 4096

#: Longest status or event text, in characters. Escaped to ASCII a character takes up to 12 bytes, and the whole field
#: must stay below ``FIELD_LIMIT``.
TEXT_LIMIT = 300


class Worker(Protocol):
    """What a kind of worker implements. The runtime calls the three one after the other, never two at once."""

    async def start(self) -> None:
        """Acquire what is needed. When it returns, ``READY=1`` is sent."""

    async def run(self) -> None:
        """Work until done; cancelled when the process is told to stop. Calls ``context.beat()`` from its own loop."""

    async def stop(self) -> None:
        """Release everything. Always called, exactly once, also after a failed start or a cancellation."""


class Context:
    """What the runtime gives to a worker: its settings, its directory, and the ways to tell how it is doing."""

    def __init__(
        self,
        service: Capture | Scan | Watch,
        data: Path,
        notifier: SystemdNotifier | channel.Sender,
        *,
        heartbeat_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.name = service.name
        self.data = data
        #: Set once the process was told to stop (SIGTERM, SIGINT) or its parent is gone.
        self.stopping = asyncio.Event()
        #: Seconds between two heartbeats. A run loop must come by at least this often.
        self.beat_interval = (service.heartbeat or Heartbeat()).interval / 2
        #: Set when the worker whose companion this is wants something done now. Whoever heeds it clears it.
        self.nudged = asyncio.Event()
        self._notifier = notifier
        self._heartbeat_file = heartbeat_file
        self._clock = clock
        self._last_beat: float | None = None
        self._last_status: float | None = None
        self._pending: dict[str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deaf_until: float | None = None

    @property
    def channel(self) -> channel.Sender | None:
        """To the worker whose companion this is; ``None`` when it is nobody's."""
        return self._notifier if isinstance(self._notifier, channel.Sender) else None

    def beat(self) -> None:
        """Say that the run loop turns: touch the heartbeat file and send ``WATCHDOG=1``.

        Cheap to call at every turn: only once per half heartbeat interval does it do anything.
        """
        now = self._clock()
        if self._last_beat is not None and now - self._last_beat < self.beat_interval:
            return
        self._last_beat = now
        self._send(WATCHDOG="1")
        if self._heartbeat_file is not None:
            try:
                self._heartbeat_file.touch(mode=0o644)
            except OSError as error:
                self.log(f"heartbeat file {self._heartbeat_file} cannot be touched: {error.strerror}")

    def status(
        self, text: str, figures: Figures | None = None, interfaces: Mapping[str, breakdown.Figures] | None = None
    ) -> None:
        """Tell in one line what the worker is doing, its numbers by name, and those of each of its interfaces.

        Sent at most twice a second; the latest wins. Raises ``ValueError`` when the figures exceed one notify field.
        """
        fields = {"STATUS": _one_line(text)}
        if figures is not None:
            fields["X_FIGURES"] = _field(dict(figures))
        if interfaces is not None:
            fields[breakdown.FIELD] = breakdown.encode(interfaces)
        self._pending = fields
        if self._timer is not None:
            return
        now = self._clock()
        due = now if self._last_status is None else self._last_status + STATUS_INTERVAL
        if due <= now:
            self.flush_status()
        else:
            self._timer = asyncio.get_running_loop().call_later(due - now, self.flush_status)

    def flush_status(self) -> None:
        """Send the latest status now if it is still waiting for its turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending is not None:
            fields, self._pending = self._pending, None
            self._last_status = self._clock()
            self._send(**fields)

    def event(self, kind: str, message: str, /, **data: Any) -> None:
        """Report that something happened; the agent stores it as an event of this service.

        ``kind`` is a short word with underscores. ``data`` that would not fit into one notify field is left out.
        """
        event = {"kind": kind, "message": _one_line(message), "data": data}
        try:
            encoded = _field(event)
        except ValueError:
            encoded = _field({**event, "data": {}})
        self._send(X_EVENT=encoded)

    def tell(self, **fields: str) -> None:
        """Send these fields at once."""
        self._send(**fields)

    def log(self, message: str) -> None:
        """Write one line to the service's log. A log that nobody reads any more is no reason to fail."""
        _print(_one_line(message, limit=FIELD_LIMIT))

    def ready(self) -> None:
        """Tell that ``start`` succeeded."""
        self._send(READY="1")

    def leaving(self) -> None:
        """Tell that the worker is on its way out; the last words are worth another try."""
        self._deaf_until = None
        self.flush_status()
        self._send(STOPPING="1")

    def _send(self, **fields: str) -> None:
        began = self._clock()
        if self._deaf_until is not None and began < self._deaf_until:
            return
        taken = self._notifier.notify(**fields)
        now = self._clock()
        self._deaf_until = now + DEAF if not taken and now - began >= STATUS_INTERVAL else None


async def live(worker: Worker, context: Context) -> None:
    """Take one worker through its life. Raises what ``start``, ``run`` or ``stop`` raised, the earliest first.

    A lock keeps the three phases apart. When ``context.stopping`` is set the phase under way is cancelled; ``stop``
    then runs to its end whatever else happens, further signals and cancellations of the caller included.
    """
    lock = asyncio.Lock()

    async def work() -> None:
        async with lock:
            context.beat()
            await worker.start()
            context.ready()
            context.beat()
            await worker.run()

    async def release() -> None:
        async with lock:
            context.leaving()
            try:
                await worker.stop()
            finally:
                context.flush_status()

    body = asyncio.create_task(work())
    stop_order = asyncio.create_task(context.stopping.wait())
    try:
        await asyncio.wait({body, stop_order}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop_order.cancel()
        body.cancel()  # does nothing to a body that has ended
        failure = await _outlive_cancellation(body)
        stop_failure = await _outlive_cancellation(asyncio.create_task(release()))
    if failure is not None and stop_failure is not None:
        context.log(f"and while stopping: {stop_failure}")
    for error in (failure, stop_failure):
        if error is not None:
            raise error
    if (caller := asyncio.current_task()) is not None and caller.cancelling():
        raise asyncio.CancelledError


async def _outlive_cancellation(task: asyncio.Task[None]) -> BaseException | None:
    """Wait for ``task`` to end even when the waiter is cancelled meanwhile; returns what it raised, if anything."""
    while not task.done():
        # The cancellation is not lost: Task.cancelling() of the caller remembers it.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return None if task.cancelled() else task.exception()


def run_worker(factory: Callable[[Context], Worker]) -> int:
    """Make a worker and run it until it is done, told to stop, or orphaned; returns the contract's exit code.

    0: it ended or was stopped. 1: its settings are wrong. 2: it failed. An ``AgentError`` is reported as one line on
    stderr, anything else with its traceback, which goes to the service's log.
    """
    try:
        asyncio.run(_serve(factory))
    except AgentError as error:
        _print(str(error))
        return error.exit_code
    except Exception:
        _print(traceback.format_exc().rstrip())
        return EXIT_RUNTIME
    return EXIT_OK


async def _serve(factory: Callable[[Context], Worker]) -> None:
    context = context_from(os.environ)
    with _stop_signals(context), _parent_watch(context), _nudges(context):
        await live(factory(context), context)


def context_from(environ: MutableMapping[str, str]) -> Context:
    """Read what the agent handed over in the environment.

    Raises ``ConfigurationError`` when a variable is missing or the settings are not those of a capture, a scan or the
    watch, ``RuntimeFailure`` when the settings cannot be read.
    """
    for name in ("SERVICE_CONFIG", "SERVICE_DATA"):
        if not environ.get(name):
            raise ConfigurationError(f"{name} is not set: a worker is started by the agent, not by hand")
    path = environ["SERVICE_CONFIG"]
    try:
        service: Capture | Scan | Watch = msgspec.json.decode(Path(path).read_bytes(), type=Capture | Scan | Watch)
    except OSError as error:
        raise RuntimeFailure(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # a DecodeError, or bytes that are no text
        raise ConfigurationError(f"{path}: not the settings of a capture, a scan or the watch: {error}") from error
    companion = channel.VARIABLE in environ  # which beats to its worker alone
    heartbeat = None if companion else environ.get("SERVICE_HEARTBEAT_FILE")
    return Context(
        service,
        Path(environ["SERVICE_DATA"]),
        channel.Sender(environ) if companion else SystemdNotifier(environ),
        heartbeat_file=Path(heartbeat) if heartbeat else None,
    )


@contextlib.contextmanager
def _stop_signals(context: Context) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a stop, as often as they like.

    Not of a companion: they go to all processes of a service at once, and it goes on for the worker that ends.
    """
    loop = asyncio.get_running_loop()
    asked = context.stopping.set if context.channel is None else _nothing
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _nudges(context: Context) -> Iterator[None]:
    """Listen to the worker whose companion this is, if it is one."""
    sender = context.channel
    if sender is None:
        yield
        return

    def heed() -> None:
        if sender.heed():
            context.nudged.set()
        else:  # it is to end, or its parent died before this process could ask who that is
            loop.remove_reader(sender.fd)
            context.stopping.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(sender.fd, heed)
    try:
        yield
    finally:
        loop.remove_reader(sender.fd)


@contextlib.contextmanager
def _parent_watch(context: Context) -> Iterator[None]:
    """Stop when the process that started us is gone: its successor starts workers of its own.

    A pidfd becomes readable when its process ends (pidfd_open(2)); a changed parent meanwhile means it already has.
    """
    loop = asyncio.get_running_loop()
    parent = os.getppid()

    def orphaned() -> None:
        context.log(f"the parent process {parent} is gone: stopping")
        loop.remove_reader(pidfd)
        context.stopping.set()

    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        context.stopping.set()
        yield
        return
    loop.add_reader(pidfd, orphaned)
    if os.getppid() != parent:
        orphaned()
    try:
        yield
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _one_line(text: str, *, limit: int = TEXT_LIMIT) -> str:
    """Fold control characters into spaces and bound the length: notify fields and log entries are single lines."""
    line = "".join(character if character.isprintable() else " " for character in text[: limit + 1]).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _field(value: Mapping[str, Any]) -> str:
    """Encode as single-line ASCII JSON. Raises ``ValueError`` when it would not fit into a field."""
    encoded = json.dumps(value, separators=(",", ":"), default=str)
    if "\\ud" in encoded:  # half of a pair is no character, and nobody would take the field
        whole = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
        encoded = json.dumps(json.loads(whole), separators=(",", ":"))
    if len(encoded) > FIELD_LIMIT:
        raise ValueError(f"{len(encoded)} bytes, at most {FIELD_LIMIT} fit")
    return encoded


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
