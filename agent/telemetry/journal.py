"""Events and the output of services as entries of systemd's journal, with the fields by which they are found there.

``journalctl AGENT_SERVICE=lan_capture -p warning`` is what this is for. The journal gets a copy: events are in the
history and output is in ``log/NAME.log`` whether it takes them or not. So it is never waited for, and what it did not
take is counted, and told once when it is back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agent.linux.journal import Journal, encode
from agent.telemetry.events import Event, Schedule
from agent.telemetry.kinds import INFO, KINDS
from agent.telemetry.log_pump import Log
from agent.telemetry.logs import LineState

AGENT = "agent"
"""SYSLOG_IDENTIFIER= of what no service has said; no service can have that name."""

LINE_MAX = 48 * 1024
"""Bytes of one entry's text; a longer line comes in several. The same as LineMax= of journald.conf(5)."""

RATE = 300
"""Lines of one service in a second, for any length of time: what journald.conf(5) grants a whole unit by default."""

BURST = 1000
"""Lines of one run that may come at once."""

UNIT = 1024
"""Bytes for which a line counts once: a longer one counts as several."""

_NAME_LIMIT = 64
_NOT_IN_A_NAME = re.compile(r"[^A-Z0-9]")
_PREFIX = re.compile(rb"<([0-7])>")  # sd-daemon(3)


class Logbook:
    """The journal, which learns how much it has missed as soon as it takes entries again."""

    def __init__(self, journal: Journal) -> None:
        self.lost = 0
        """Entries that it has not taken since the last that it did."""
        self._journal = journal

    def write(self, entry: bytes) -> None:
        """Hand an encoded entry over, or count it as lost. Never blocks and never raises."""
        if self.lost and not self._journal.send(_missed(self.lost)):
            self.lost += 1
            return
        self.lost = 0 if self._journal.send(entry) else 1


def event_entry(event: Event) -> bytes:
    """An event with its fields. ``data`` becomes AGENT_DATA_NAME=: text and numbers as they are, the rest as JSON."""
    return encode(
        [
            ("MESSAGE", _bytes(f"{event.kind.replace('_', ' ')}: {event.message}")),
            ("PRIORITY", b"%d" % _priority(event)),
            ("SYSLOG_IDENTIFIER", _bytes(event.service or AGENT)),
            *([("AGENT_SERVICE", _bytes(event.service))] if event.service else []),
            ("AGENT_EVENT", _bytes(event.kind)),
            *([("MESSAGE_ID", KINDS[event.kind].id.encode())] if event.kind in KINDS else []),
            *((_data_name(name), _value(value)) for name, value in event.data.items() if value is not None),
        ]
    )


def remark(text: str) -> bytes:
    """A line of the agent's own that is no event."""
    return encode([("MESSAGE", _bytes(text)), ("PRIORITY", b"%d" % INFO), ("SYSLOG_IDENTIFIER", AGENT.encode())])


class JournalledLog:
    """A log whose lines go into the journal as well: one run's output, under the name of its ``service``.

    A line is an entry, its priority that of a leading ``<N>`` (sd-daemon(3)) or ``INFO``; empty lines are none. What is
    over ``RATE`` and ``BURST`` is left out, until half of ``BURST`` has been saved up again, and then how many lines
    are missing is told. ``schedule`` (``loop.call_later``) tells it when the service has fallen silent; without it,
    that comes with the next output or the end. ``clock`` is monotonic.
    """

    def __init__(
        self,
        log: Log,
        service: str,
        write: Callable[[bytes], None],
        *,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._service = service
        self._write = write
        self._schedule = schedule
        self._clock = clock
        name = service.encode()
        self._fields = encode([("SYSLOG_IDENTIFIER", name), ("AGENT_SERVICE", name), ("AGENT_STREAM", b"output")])
        self._partial = bytearray()
        self._begun = False  # the line at hand has an entry already
        self._skipping = False  # the beginning of the line at hand was left out, and so is the rest
        self._priority = INFO
        self._left = float(BURST)
        self._filled = clock()
        self._flooded = False
        self._armed = False
        self._missing = 0

    def write(self, data: bytes) -> None:
        """Append a piece of output, which may begin and end anywhere in a line."""
        self._log.write(data)
        if self._flooded and not self._saved_up():
            self._leave_out(data, 0)
            return
        at = 0
        if self._skipping:
            at = data.find(b"\n") + 1
            if not at:
                return
            self._skipping = False
            self._missing += 1
        while (end := data.find(b"\n", at)) >= 0:
            self._partial += data[at:end]
            at = end + 1
            self._end()
            if self._flooded:
                self._leave_out(data, at)
                return
        self._partial += data[at:]
        while len(self._partial) > LINE_MAX and not self._skipping:
            self._skipping = not self._piece(bytes(self._partial[:LINE_MAX]))
            del self._partial[: len(self._partial) if self._skipping else LINE_MAX]

    def end_line(self) -> None:
        """Finish the line that a program left unfinished, and tell what is missing."""
        self._log.end_line()
        self._finish()
        self._surface()

    def dropped(self, count: int, reason: str) -> None:
        """Say that ``count`` bytes never got here."""
        self._log.dropped(count, reason)
        self._finish()
        self._tell(f"dropped {count} bytes: {reason}", bytes=count)

    def freeze(self) -> LineState:
        """What another program in this process needs to go on in the middle of a line. A flood ends here."""
        self._surface()
        return LineState(bytes(self._partial), self._begun, self._skipping, self._priority)

    def thaw(self, state: LineState) -> None:
        """Go on where an earlier program was frozen; for a log to which nothing has been written yet."""
        self._partial = bytearray(state.text)
        self._begun, self._skipping, self._priority = state.begun, state.skipping, state.priority

    # -- lines --------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._skipping:
            self._skipping = False
            self._missing += 1
        elif self._partial:
            self._end()
        self._begun = False

    def _end(self) -> None:
        """The line at hand is complete."""
        line = bytes(self._partial).removesuffix(b"\r")
        self._partial.clear()
        for at in range(0, len(line), LINE_MAX):
            if not self._piece(line[at : at + LINE_MAX]):
                self._missing += 1
                break
        self._begun = False

    def _piece(self, text: bytes) -> bool:
        """An entry for a line or, when it is too long, for a part of it; ``False`` when there may be none."""
        if not self._begun:
            prefix = _PREFIX.match(text)
            self._priority = int(prefix[1]) if prefix else INFO
            text = text[prefix.end() :] if prefix else text
            if not text:
                return True
        if not self._spend(len(text)):
            return False
        self._begun = True
        self._write(self._fields + encode([("PRIORITY", b"%d" % self._priority), ("MESSAGE", text)]))
        return True

    # -- floods -------------------------------------------------------------------------------------------------------

    def _spend(self, size: int) -> bool:
        self._fill()
        if self._left < 1:
            self._flooded = True
            self._arm()
            return False
        self._left -= 1 + size // UNIT
        return True

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._filled) * RATE)
        self._filled = now

    def _arm(self) -> None:
        if self._schedule and not self._armed:
            self._armed = True
            self._schedule(max(0.0, (BURST / 2 - self._left) / RATE), self._rested)

    def _rested(self) -> None:
        self._armed = False
        if self._flooded and not self._saved_up():
            self._arm()

    def _saved_up(self) -> bool:
        """Whether there is enough to go on; a flood has then ended, or is seen again for a while."""
        self._fill()
        if self._left < BURST / 2:
            return False
        self._surface()
        return True

    def _leave_out(self, data: bytes, at: int) -> None:
        """Count the lines that end from ``at`` on, and know whether one goes on."""
        self._missing += data.count(b"\n", at)
        if at < len(data):
            self._skipping = not data.endswith(b"\n")

    def _surface(self) -> None:
        """End a flood, and say what is missing."""
        self._flooded = False
        if self._missing:
            missing, self._missing = self._missing, 0
            lines = f"{missing} line{'' if missing == 1 else 's'}"
            self._tell(f"{lines}: more than {RATE} a second; log/{self._service}.log has more", lines=missing)

    def _tell(self, message: str, **data: int) -> None:
        self._write(event_entry(Event(0, 0.0, self._service, "output_left_out", message, data)))


def _missed(count: int) -> bytes:
    entries = f"{count} entr{'y' if count == 1 else 'ies'}"
    message = f"{entries} before this one: the journal was gone, or could not keep up; `agentctl events` has the events"
    return event_entry(Event(0, 0.0, None, "journal_lost", message, {"entries": count}))


def _priority(event: Event) -> int:
    """That of its kind; for an exit, whether it has to worry anybody."""
    if event.kind == "exited" and (event.data.get("code") == 0 or event.data.get("asked")):
        return INFO
    return KINDS[event.kind].priority if event.kind in KINDS else INFO


def _data_name(name: str) -> str:
    return f"AGENT_DATA_{_NOT_IN_A_NAME.sub('_', name.upper())}"[:_NAME_LIMIT]


def _value(value: Any) -> bytes:
    return _bytes(value) if isinstance(value, str) else msgspec.json.encode(value)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
