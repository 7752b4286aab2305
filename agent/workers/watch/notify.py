"""The watch's duty to tell: reads the agent's events, puts what is to be told in a queue on disk, and delivers it.

Each notification is delivered by itself, one message after the other, so that one that does not work holds up no other.
What fails is tried again later and later. That it fails, that messages are given up and that it works again are events,
each told once until it works again: others are told of them, and may not work either.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from agent.declaration.amounts import count
from agent.declaration.model import Notify, Watch
from agent.errors import SpawnFailed, StorageFailure
from agent.linux.spawn import base_environment
from agent.workers.watch import notify_mail, notify_webhook
from agent.workers.watch.duty import Teller, Turn
from agent.workers.watch.notify_choice import concerns
from agent.workers.watch.notify_message import complete, compose
from agent.workers.watch.notify_program import Outcome, handed_over
from agent.workers.watch.notify_queue import LAST_RETRY, LONGEST, Failing, Queue, Waiting, delay_after
from agent.workers.watch.notify_source import EventSource

LOOK: Final = 0.5
"""Seconds from one look for events to the next."""

BEFORE: Final = 60.0
"""Seconds before the first watch of all in which what happened is told of, too."""

MOST_AT_ONCE: Final = 100
"""Messages that are made for one notification between two looks: the watch goes on beating."""

MOST_REFUSALS: Final = 3
"""So often a message is offered to who says that it is not wanted."""

TIMEOUT: Final = 30.0
"""Seconds that a command may take for one message."""

LARGEST_SECRET: Final = 64 * 1024


class NotifyDuty:
    """Made for the settings of a watch whose directory is ``data``, beside which the agent has its own.

    ``environ`` is this process's environment: it names the files of secrets, and the server. ``clock`` gives unix
    seconds, ``port`` is where the mail system listens.
    """

    def __init__(
        self,
        teller: Teller,
        service: Watch,
        data: Path,
        environ: Mapping[str, str] = os.environ,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        port: int = 25,
    ) -> None:
        self._teller = teller
        self._notifies = {notify.name: notify for notify in service.notifies}
        self._data = data
        self._environ = dict(environ)
        self._server = environ.get("SERVICE_SERVER") or os.uname().nodename
        self._clock = clock
        self._steady = steady
        self._port = port
        self._source = EventSource(data.parent / "agent" / "events.db")
        self._queue: Queue | None = None
        self._begun = False
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._failing: dict[str, Failing] = {}
        self._delivered = self._dropped = self._waiting = 0
        self._done: dict[str, int] = {}  # the last one delivered, as long as the disk does not take that
        self._pauses: dict[str, float] = {}
        self._problem = self._failure = ""

    async def start(self) -> None:
        """Nothing yet: a disk on which the queue cannot be opened is waited for as well."""

    def _open(self) -> Queue:
        """The queue, opened if it was not. Raises ``StorageFailure``."""
        if self._queue is None:
            queue = Queue(self._data / "notify.db", self._clock)
            self._failing = {name: one for name, one in queue.failing().items() if name in self._notifies}
            self._queue = queue
            self._tell_replaced(queue)
        return self._queue

    def _begin(self, queue: Queue) -> None:
        """The first watch of all begins with what its agent began with. A cursor is at least unix milliseconds."""
        if not self._begun:
            cursor = queue.cursor
            queue.begin(int((self._clock() - BEFORE) * 1000) if cursor is None else cursor, self._notifies)
            self._begun = True

    def _tell_replaced(self, queue: Queue) -> None:
        if queue.opened.moved_aside is not None:
            self._teller.event(
                "database_replaced",
                f"{self._data / 'notify.db'} could not be read ({queue.opened.reason}): it is now"
                f" {queue.opened.moved_aside}, and a new one was made",
            )

    async def run(self, turn: Turn) -> None:
        """Tell until cancelled. A disk that is full or broken is waited for."""
        async with asyncio.TaskGroup() as group:
            while True:
                turn()
                try:
                    more = self._look(group)
                    self._trouble("")
                except StorageFailure as failure:  # nothing is lost: what was read is read again
                    more = False
                    self._trouble(str(failure))
                await asyncio.sleep(0 if more else 10 * LOOK if self._failure else LOOK)

    def _look(self, group: asyncio.TaskGroup) -> bool:
        """Once from events to deliveries; whether there may be more. Raises ``StorageFailure``."""
        queue = self._open()
        try:
            self._begin(queue)
            for name in list(self._done):
                self._tidy(queue, name)
            more = self._read(queue)
            self._group(queue)
            self._waiting = queue.waiting()
        finally:  # what is queued goes out, whatever becomes of what is to be: it may be about the disk
            self._deliver(queue, group)
        return more

    async def stop(self) -> None:
        """Let go of both databases; what was being delivered is delivered again by the next watch."""
        self._source.close()
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def status(self) -> str:
        """Who is not told, and why; or how much waits."""
        if self._failure:
            return self._failure
        if self._failing:
            name, failing = next(iter(self._failing.items()))
            more = f" and {len(self._failing) - 1} more" if len(self._failing) > 1 else ""
            return f"{name}{more} cannot be told: {failing.why}"
        return f"{count(self._waiting, 'notification')} waiting" if self._waiting else ""

    def figures(self) -> Mapping[str, int | float | str | None]:
        """Since the watch began, but for those that wait."""
        return {
            "notifications_delivered": self._delivered,
            "notifications_waiting": self._waiting,
            "notifications_dropped": self._dropped,
            "notifications_failing": len(self._failing),
        }

    def _read(self, queue: Queue) -> bool:
        """Take in what has happened; whether there may be more."""
        cursor = queue.cursor or 0
        events = self._source.after(cursor)
        if self._source.problem != self._problem:
            self._problem = self._source.problem
            self._teller.log(self._problem or "the agent's events can be read again")
        if not events:
            return False
        if (gone := self._source.forgotten()) > cursor and events[0].cursor > gone:
            self._teller.log("events were forgotten before they were read: the watch was away for too long")
        now = self._clock()
        recent = [event for event in events if event.time > now - LONGEST]
        found = {
            name: [event for event in recent if concerns(notify, event)] for name, notify in self._notifies.items()
        }
        queue.take(events[-1].cursor, {name: chosen for name, chosen in found.items() if chosen}, now)
        return True

    def _group(self, queue: Queue) -> None:
        """Make messages of what has been held for long enough.

        None has to make room for another as long as they are taken: until then the events are held on.
        """
        for name, notify in self._notifies.items():
            now, arrivals = self._clock(), queue.arrivals(name)
            for _ in range(MOST_AT_ONCE if name in self._failing else min(MOST_AT_ONCE, queue.room(name))):
                number = complete(arrivals, notify.group, now)
                if not number:
                    break
                events = queue.held(name, number)
                message = compose(self._server, name, events, queue.missed(name), now)
                if gone := queue.put(name, message, events[-1].cursor, now):
                    self._drop(name, f"the oldest messages have to make room: {self._failing[name].why}", gone)
                arrivals = arrivals[number:]

    def _deliver(self, queue: Queue, group: asyncio.TaskGroup) -> None:
        for name, notify in self._notifies.items():
            under_way = self._under_way.get(name)
            if (under_way is None or under_way.done()) and self._due(queue, name) is not None:
                self._under_way[name] = group.create_task(self._one_by_one(queue, notify))

    def _due(self, queue: Queue, name: str) -> Waiting | None:
        """The message that is to be delivered now."""
        message = queue.next(name, self._done.get(name, 0))
        if message is None or self._steady() < self._pauses.get(name, 0.0):
            return None
        # A clock that was set back holds nothing up for longer than a retry may take.
        return None if self._clock() < message.due <= self._clock() + LAST_RETRY + 60 else message

    async def _one_by_one(self, queue: Queue, notify: Notify) -> None:
        """Deliver messages until none is due, or one is not taken: then there is a look first."""
        try:
            while (message := self._due(queue, notify.name)) is not None:
                outcome = await self._send(notify, message)
                self._settle(queue, notify.name, message, outcome)
                if not outcome.delivered:
                    break
        except StorageFailure as failure:
            self._trouble(str(failure))

    def _settle(self, queue: Queue, name: str, message: Waiting, outcome: Outcome) -> None:
        if outcome.delivered:
            self._delivered += 1
            self._done[name] = message.number
            if (failing := self._failing.pop(name, None)) is not None:
                gone = f"; {count(failing.dropped, 'message')} given up meanwhile" if failing.dropped else ""
                self._teller.event("notify_resumed", f"{name} can be told again{gone}", notify=name)
            self._tidy(queue, name)
            return
        now, delay = self._clock(), delay_after(message.attempts)
        given_up = (outcome.refused and message.refusals + 1 >= MOST_REFUSALS) or now - message.created > LONGEST
        self._pauses[name] = self._steady() + delay
        self._fail(name, outcome.why, "" if given_up else f"; tried again in {delay:.0f} s, then ever less often")
        self._tidy(queue, name)
        if given_up:
            queue.give_up(name, message, outcome.why)
            del self._pauses[name]
            self._drop(name, f"message {message.id} is given up: {outcome.why}")
        else:
            queue.retry(name, message, now + delay, outcome.why, refused=outcome.refused)

    def _tidy(self, queue: Queue, name: str) -> None:
        """Remove what has been delivered. Raises ``StorageFailure``: it is known as delivered all the same."""
        if name in self._done:
            queue.delivered(name, self._done[name])
            del self._done[name]

    def _fail(self, name: str, why: str, then: str) -> None:
        if name not in self._failing:
            self._teller.event("notify_failed", f"{name} cannot be told: {why}{then}", notify=name)
            self._failing[name] = Failing(why)
        self._failing[name] = self._failing[name]._replace(why=why)

    def _trouble(self, failure: str) -> None:
        if failure and failure != self._failure:
            self._teller.log(failure)
        self._failure = failure

    def _drop(self, name: str, why: str, number: int = 1) -> None:
        self._dropped += number
        before = self._failing[name]
        self._failing[name] = before._replace(dropped=before.dropped + number)
        if not before.dropped:
            self._teller.event("notify_dropped", f"{name}: {why}", notify=name)

    async def _send(self, notify: Notify, message: Waiting) -> Outcome:
        environment = base_environment(self._environ)
        if notify.webhook is not None:
            try:
                key = self._key(notify.secret)
            except OSError as error:
                return Outcome(False, f"secret {notify.secret} cannot be read: {error.strerror}")
            except ValueError as error:
                return Outcome(False, f"secret {notify.secret} {error}")
            return await notify_webhook.post(notify.webhook, message.id, message.body, key, self._clock(), environment)
        if notify.email is not None:
            return await notify_mail.send(notify.email, msgspec.json.decode(message.body), environment, self._port)
        try:
            return await handed_over(notify.command or (), environment, message.body, timeout=TIMEOUT)
        except SpawnFailed as error:
            return Outcome(False, str(error))

    def _key(self, name: str | None) -> bytes | None:
        """What webhooks are signed with, as it is now: a secret may be exchanged at any time.

        Raises ``OSError`` when it cannot be read, ``ValueError`` when it is no key.
        """
        if name is None:
            return None
        with Path(self._environ.get(f"{name.upper()}_FILE", "")).open("rb") as file:
            return notify_webhook.key_of(file.read(LARGEST_SECRET))
