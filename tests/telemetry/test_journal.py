"""What the journal is told: events with their fields, and a service's output, of which it cannot forge any."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux.journal import encode
from agent.telemetry.events import Event, EventStore
from agent.telemetry.journal import BURST, LINE_MAX, RATE, UNIT, JournalledLog, Logbook, event_entry, remark
from agent.telemetry.kinds import INFO, KINDS, WARNING
from agent.telemetry.log_pump import LogPump
from agent.telemetry.logs import LogFile, LogState
from tests.linux.journald import Entry, Journald, parse

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = {"SYSLOG_IDENTIFIER": b"api", "AGENT_SERVICE": b"api", "AGENT_STREAM": b"output"}


class Recorder:
    """A log, the journal's entries, a clock and the timers that were asked for."""

    def __init__(self) -> None:
        self.logged = b""
        self.entries: list[Entry] = []
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.log = JournalledLog(self, "api", self.take, schedule=self.schedule, clock=lambda: self.now)

    def take(self, entry: bytes) -> None:
        self.entries += parse(entry)

    def schedule(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, callback))

    def later(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, callback in due:
            callback()

    # -- the log behind it ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.logged += data

    def end_line(self) -> None:
        """A real log would end its line."""

    def dropped(self, count: int, reason: str) -> None:
        self.logged += b"dropped"

    # -- what came of it ------------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[tuple[int, bytes]]:
        """Priority and text of the entries that are output."""
        found = [dict(entry) for entry in self.entries]
        return [(int(entry["PRIORITY"]), entry["MESSAGE"]) for entry in found if "AGENT_STREAM" in entry]

    @property
    def told(self) -> list[str]:
        """The text of the other entries."""
        found = [dict(entry) for entry in self.entries]
        return [entry["MESSAGE"].decode() for entry in found if "AGENT_STREAM" not in entry]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def event(kind: str = "failed", service: str | None = "api", **data: Any) -> Event:
    return Event(cursor=7, time=1.0, service=service, kind=kind, message="why", data=data)


def fields(entry: bytes) -> dict[str, bytes]:
    (found,) = parse(entry)
    assert len(dict(found)) == len(found)
    return dict(found)


# -- events -----------------------------------------------------------------------------------------------------------


def test_an_event_has_the_fields_by_which_it_is_found() -> None:
    assert fields(event_entry(event("start_timeout", pid=17, share=0.5, up=True, note="é", gone=None, of=[1, 2]))) == {
        "MESSAGE": b"start timeout: why",
        "PRIORITY": b"4",
        "SYSLOG_IDENTIFIER": b"api",
        "AGENT_SERVICE": b"api",
        "AGENT_EVENT": b"start_timeout",
        "MESSAGE_ID": KINDS["start_timeout"].id.encode(),
        "AGENT_DATA_PID": b"17",
        "AGENT_DATA_SHARE": b"0.5",
        "AGENT_DATA_UP": b"true",
        "AGENT_DATA_NOTE": "é".encode(),
        "AGENT_DATA_OF": b"[1,2]",
    }


def test_an_event_of_the_agent_is_of_no_service() -> None:
    found = fields(event_entry(event("clock_set", service=None)))
    assert found["SYSLOG_IDENTIFIER"] == b"agent"
    assert "AGENT_SERVICE" not in found


def test_an_event_that_only_a_service_knows_has_no_id_and_is_a_remark() -> None:
    found = fields(event_entry(event("tea_is_ready")))
    assert (found["AGENT_EVENT"], found["PRIORITY"]) == (b"tea_is_ready", b"6")
    assert "MESSAGE_ID" not in found


ENDS = [({"code": 0}, INFO), ({"signal": 15, "asked": True}, INFO), ({"code": 3}, WARNING), ({}, WARNING)]


@pytest.mark.parametrize(("data", "priority"), ENDS)
def test_an_end_that_was_asked_for_or_went_well_warns_nobody(data: dict[str, Any], priority: int) -> None:
    assert fields(event_entry(event("exited", **data)))["PRIORITY"] == b"%d" % priority


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.text(max_size=200), st.text(max_size=70), st.dictionaries(st.text(max_size=80), VALUES, max_size=5))
def test_whatever_an_event_holds_it_is_one_entry_with_its_own_fields(
    message: str, kind: str, data: dict[str, Any]
) -> None:
    """As it comes out of the history, through which every event goes; that a worker sends it does not matter."""
    history = EventStore(Path("/dev/null/none"), schedule=lambda seconds, callback: None)
    made = history.append(kind, message, "api")
    (found,) = parse(event_entry(Event(made.cursor, made.time, "api", made.kind, made.message, data)))
    names = [name for name, _ in found]
    once = [name for name in names if not name.startswith("AGENT_DATA_")]
    assert len(set(once)) == len(once)
    assert set(once) <= {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "AGENT_SERVICE", "AGENT_EVENT", "MESSAGE_ID"}
    assert dict(found)["AGENT_SERVICE"] == b"api"
    assert dict(found)["MESSAGE"].decode() == f"{made.kind.replace('_', ' ')}: {made.message}"
    assert len(names) - len(once) == sum(value is not None for value in data.values())


def test_a_remark_is_the_agents_own() -> None:
    assert fields(remark("in another terminal")) == {
        "MESSAGE": b"in another terminal",
        "PRIORITY": b"6",
        "SYSLOG_IDENTIFIER": b"agent",
    }


# -- output -----------------------------------------------------------------------------------------------------------


def test_each_line_is_an_entry_under_the_name_of_its_service(recorder: Recorder) -> None:
    for piece in (b"on", b"e\ntwo\nth", b"ree", b"\n", b"last"):
        recorder.log.write(piece)
    recorder.log.end_line()
    expected = [{**OUTPUT, "PRIORITY": b"6", "MESSAGE": text} for text in (b"one", b"two", b"three", b"last")]
    assert [dict(entry) for entry in recorder.entries] == expected
    assert recorder.logged == b"one\ntwo\nthree\nlast"


def test_a_line_says_how_urgent_it_is(recorder: Recorder) -> None:
    recorder.log.write(b"<3>broken\n<")
    recorder.log.write(b"4>careful\n<7>\n<8>no\n <1>inside\n<30>facility\n<2\nafter\n")
    assert recorder.lines == [
        (3, b"broken"),
        (4, b"careful"),
        (6, b"<8>no"),
        (6, b" <1>inside"),
        (6, b"<30>facility"),
        (6, b"<2"),
        (6, b"after"),
    ]
    assert b"<3>broken\n" in recorder.logged


def test_a_service_forges_no_field(recorder: Recorder) -> None:
    text = b"x\0PRIORITY=0\rMESSAGE_ID=0\x1b[2J\x85\xe2\x80\xa8AGENT_SERVICE=other\xff"
    recorder.log.write(text + b"\nAGENT_SERVICE=other\n\nSYSLOG_IDENTIFIER\n\x05\0\0\0\0\0\0\0other\n")
    assert [dict(entry) for entry in recorder.entries] == [
        {**OUTPUT, "PRIORITY": b"6", "MESSAGE": line}
        for line in (text, b"AGENT_SERVICE=other", b"SYSLOG_IDENTIFIER", b"\x05\0\0\0\0\0\0\0other")
    ]


PIECES = st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", b"\r\n", b"<3>", b"\n<5>\n"]), max_size=30)


@given(PIECES)
def test_whatever_pieces_output_comes_in_each_line_is_one_entry_and_nothing_else_is(pieces: list[bytes]) -> None:
    recorder = Recorder()
    for piece in pieces:
        recorder.log.write(piece)
    recorder.log.end_line()
    output = b"".join(pieces)
    lines = [line.removesuffix(b"\r") for line in output.split(b"\n")]
    wanted = [(int(line[1:2]), line[3:]) if re.match(rb"<[0-7]>", line) else (6, line) for line in lines]
    assert recorder.lines == [(priority, line) for priority, line in wanted if line]
    assert recorder.told == []
    assert recorder.logged == output


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 3 * LINE_MAX), max_size=12), st.integers(1, 100_000))
def test_a_line_without_end_comes_in_bounded_pieces(lengths: list[int], piece: int) -> None:
    recorder = Recorder()
    output = b"\n".join(b"<4>" + b"x" * length for length in lengths)
    for at in range(0, len(output), piece):
        recorder.log.write(output[at : at + piece])
        recorder.later(3600)
    recorder.log.end_line()
    assert b"".join(text for _, text in recorder.lines) == b"x" * sum(lengths)
    assert all(len(text) <= LINE_MAX and priority == 4 for priority, text in recorder.lines)


@given(PIECES, PIECES)
def test_another_program_in_this_process_goes_on_in_the_middle_of_a_line(
    before: list[bytes], after: list[bytes]
) -> None:
    """As over a hand-over; what travels is JSON."""
    first, second, whole = Recorder(), Recorder(), Recorder()
    for piece in before:
        first.log.write(piece)
    frozen = msgspec.json.encode(LogState(line=first.log.freeze()))
    second.log.thaw(msgspec.json.decode(frozen, type=LogState).line)
    for piece in after:
        second.log.write(piece)
    for piece in before + after:
        whole.log.write(piece)
    for recorder in (second, whole):
        recorder.log.end_line()
    assert first.entries + second.entries == whole.entries


# -- floods -----------------------------------------------------------------------------------------------------------


def test_a_flood_is_cut_and_how_much_is_missing_is_told_when_it_is_over(recorder: Recorder) -> None:
    recorder.log.write(b"".join(b"%d\n" % number for number in range(5000)))
    assert [text for _, text in recorder.lines] == [b"%d" % number for number in range(BURST)]
    assert recorder.told == []
    recorder.later(BURST / 2 / RATE + 0.01)
    (told,) = recorder.told
    assert told == f"output left out: {5000 - BURST} lines: more than {RATE} a second; log/api.log has more"
    assert dict(recorder.entries[-1])["AGENT_DATA_LINES"] == b"%d" % (5000 - BURST)
    recorder.log.write(b"calm\n")
    assert recorder.lines[-1] == (6, b"calm")
    assert recorder.timers == []


def test_a_flood_that_goes_on_is_seen_again_and_again_at_the_rate_and_never_more(recorder: Recorder) -> None:
    for _ in range(1000):
        recorder.log.write(b"spam\n" * 100)
        recorder.later(0.01)
    assert len(recorder.timers) <= 1
    recorder.log.end_line()
    assert BURST + 8 * RATE <= len(recorder.lines) <= BURST + 10 * RATE
    assert len(recorder.told) <= 8
    missing = [int(text.split()[3]) for text in recorder.told]
    assert sum(missing) + len(recorder.lines) == 100_000


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 400), st.floats(0, 2)), max_size=20))
def test_no_line_gets_lost_uncounted(floods: list[tuple[bytes, int, float]]) -> None:
    """Whatever comes in whichever rhythm: what is in the journal and what it is told to miss make the whole."""
    recorder = Recorder()
    for text, count, pause in floods:
        recorder.log.write((b"x" + text.replace(b"\n", b"") + b"\nno end") * count)
        recorder.later(pause)
    recorder.log.end_line()
    missing = sum(int(text.split()[3]) for text in recorder.told)
    assert len(recorder.lines) + missing == recorder.logged.count(b"\n") + bool(floods)


def test_a_long_line_counts_as_several(recorder: Recorder) -> None:
    recorder.log.write((b"x" * (10 * UNIT) + b"\n") * BURST)
    assert len(recorder.lines) == -(-BURST // 11)


def test_the_rest_of_a_line_that_was_left_out_is_left_out_too(recorder: Recorder) -> None:
    recorder.log.write(b"spam\n" * BURST + b"one\nthe beginning,")
    recorder.later(3600)
    recorder.log.write(b" and the rest\nwhole\n")
    assert recorder.lines[BURST:] == [(6, b"whole")]
    recorder.log.end_line()
    assert [int(text.split()[3]) for text in recorder.told] == [1, 1]


def test_what_never_reached_the_log_is_told_as_there(recorder: Recorder) -> None:
    recorder.log.write(b"the last before")
    recorder.log.dropped(4711, "output faster than 16777216 bytes per second")
    assert recorder.lines == [(6, b"the last before")]
    assert recorder.told == ["output left out: dropped 4711 bytes: output faster than 16777216 bytes per second"]


def test_behind_a_pipe_the_log_and_the_journal_get_the_same(tmp_path: Path) -> None:
    written: list[Entry] = []
    log = JournalledLog(LogFile(tmp_path / "api.log", 4096, 1), "api", lambda entry: written.extend(parse(entry)))
    read_end, write_end = os.pipe()
    pump = LogPump(read_end, log)
    os.write(write_end, b"<4>one\ntwo")
    os.close(write_end)
    assert not pump.read_ready()
    pump.close()
    assert [dict(entry)["MESSAGE"] for entry in written] == [b"one", b"two"]
    assert [line[25:] for line in (tmp_path / "api.log").read_bytes().splitlines()] == [b"<4>one", b"two"]


# -- a journal that comes and goes ------------------------------------------------------------------------------------


def line(text: str) -> bytes:
    return encode([("MESSAGE", text.encode())])


MISSED = "before this one: the journal was gone, or could not keep up; `agentctl events` has the events"


def test_what_a_journal_missed_is_told_once_it_is_back(journald: Journald, logbook: Logbook) -> None:
    journald.go()
    for number in range(3):
        logbook.write(line(f"lost {number}"))
    again = Journald(journald.path)
    for text in ("back", "and well"):
        logbook.write(line(text))
    assert again.messages() == [f"journal lost: 3 entries {MISSED}", "back", "and well"]
    again.go()


def test_a_journal_that_cannot_keep_up_misses_what_there_is_no_room_for(journald: Journald, logbook: Logbook) -> None:
    for number in range(100_000):
        logbook.write(line(str(number)))
    taken = journald.messages()
    assert taken == [str(number) for number in range(len(taken))]
    logbook.write(line("after"))
    assert journald.messages() == [f"journal lost: {100_000 - len(taken)} entries {MISSED}", "after"]


# -- the table, the catalog and the page ------------------------------------------------------------------------------


def kinds_in_the_code() -> set[str]:
    """Every kind of event that the program names where it records one."""
    found: set[str] = set()
    for file in (ROOT / "agent").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                found |= {word for argument in recorded(node) for word in words(argument)}
    return found


def recorded(call: ast.Call) -> list[ast.expr]:
    """The argument that is a kind, where the call records an event."""
    match call.func:
        case ast.Name("Record") | ast.Attribute(attr="event" | "_report"):
            return call.args[:1]
        case ast.Attribute(ast.Attribute(attr="_events" | "events") | ast.Name("self"), "append"):
            return call.args[:1]
        case ast.Attribute(attr="record"):
            return call.args[1:2]
        case ast.Name("Event"):
            return call.args[3:4]
        case ast.Name("_end"):  # of the lifecycle
            return call.args[5:6]
    return []


def words(argument: ast.expr) -> list[str]:
    """The text of a constant; both of a choice."""
    match argument:
        case ast.Constant(str(text)):
            return [text] if re.fullmatch("[a-z]+(_[a-z]+)*", text) else []
        case ast.IfExp(body=one, orelse=other):
            return words(one) + words(other)
    return []


def test_every_kind_that_the_program_records_is_in_the_table() -> None:
    found = kinds_in_the_code()
    assert {"failed", "reloaded", "interface_lost", "scan_finished", "start_timeout", "storage"} <= found
    assert found - KINDS.keys() == set(), "add them to agent/telemetry/kinds.py, systemd/agent.catalog, docs/journal.md"


PRIORITIES = {3: "err", 4: "warning", 5: "notice", 6: "info"}


def test_ids_are_of_128_bits_and_each_is_used_once() -> None:
    assert all(re.fullmatch("[0-9a-f]{32}", kind.id) for kind in KINDS.values())
    assert len({kind.id for kind in KINDS.values()}) == len(KINDS)


def test_the_catalog_explains_each_kind_and_nothing_else() -> None:
    text = (ROOT / "systemd" / "agent.catalog").read_text()
    explained = dict(re.findall(r"^-- (\w+)\n(.*?)(?=^-- |\Z)", text, re.DOTALL | re.MULTILINE))
    assert list(explained) == [kind.id for kind in KINDS.values()]
    assert not re.search(r"[^\n]\n-- ", text), "systemd reads no entry without an empty line before it"
    for name, kind in KINDS.items():
        head, _, body = explained[kind.id].partition("\n\n")
        subject, definer, documentation = head.splitlines()
        assert re.fullmatch(r"Subject: .{5,70}", subject), name
        assert definer == "Defined-By: agent"
        assert documentation == "Documentation: man:agentctl(1)"
        assert len(body.split()) > 8, name
        # What is put in between is a field that such an entry has.
        fields = {"AGENT_SERVICE", "AGENT_DATA_PID", "AGENT_DATA_LIMIT"}
        assert set(re.findall(r"@(\w+)@", explained[kind.id])) <= fields, name


def test_the_page_lists_each_kind_with_its_priority_and_id() -> None:
    page = (ROOT / "docs" / "journal.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| `(\w+)` \|$", page, re.MULTILINE)
    assert rows == [(name, PRIORITIES[kind.priority], kind.id) for name, kind in KINDS.items()]
