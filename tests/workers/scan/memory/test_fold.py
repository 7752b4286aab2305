"""What a run saw becomes what is believed: nothing is lost to a lost packet, and nothing is told twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.found import Certificate, Host, Port, Rest
from agent.workers.scan.memory.fold import PORTS_LIMIT, Change, Folded, Policy, fold, fold_passive
from agent.workers.scan.memory.state import BY_SERVICE, BY_STATE, HOST, HostState, Key, looks, shown, steady, turns
from agent.workers.scan.spans import of, without

SSH: Key = ("tcp", 22)
WEB: Key = ("tcp", 80)
ALL = ((1, 100),)
UNTRUSTED = Policy(closing=False)


def look(*ports: Port, others: str = "closed") -> Host:
    """A look at a host that was asked for TCP ports 1 to 100."""
    told = of(port.number for port in ports)
    return Host("10.0.0.1", "up", "syn-ack", ports=ports, rest=(Rest("tcp", others, "reset", without(ALL, told)),))


def ssh(version: str = "", extrainfo: str = "", tunnel: str = "") -> Port:
    product = "OpenSSH" if version else ""
    return Port("tcp", 22, "open", "syn-ack", "ssh", product, version, extrainfo, tunnel, method="probed")


BARE = Port("tcp", 22, "open", "syn-ack")


class Memory:
    """One host over many runs, 100 s apart."""

    def __init__(self) -> None:
        self.state = HostState()
        self.now = 0.0
        self.changes: list[Change] = []

    def run(
        self, seen: Host | None, policy: Policy | None = None, *, covered: bool = True, twice: tuple[Key, ...] = ()
    ) -> Folded:
        self.now += 100
        return self.take(fold(self.state, seen, covered, policy or Policy(), self.now, twice))

    def take(self, folded: Folded) -> Folded:
        self.state = folded.state
        self.changes += folded.changes
        return folded

    def told(self) -> list[str]:
        """What was told since the last time."""
        told = [change.kind for change in self.changes]
        self.changes.clear()
        return told


@pytest.fixture
def memory() -> Memory:
    """A host whose port 22 is open for two runs."""
    made = Memory()
    made.run(look(BARE))
    made.run(look(BARE))
    made.told()
    return made


def test_a_host_is_told_at_once_and_a_port_when_it_was_seen_open_twice() -> None:
    memory = Memory()
    assert memory.run(look(BARE)).doubts == (SSH,)
    assert memory.told() == ["host_new"]
    assert memory.run(look(BARE)).doubts == ()
    assert memory.told() == ["port_opened"]
    port = memory.state.ports[SSH]
    assert (port.state, port.first_seen, port.last_seen, port.last_changed, port.source) == (
        "open",
        100,
        200,
        200,
        "sweep",
    )


@pytest.mark.parametrize(
    ("port", "twice"),
    [(BARE, (SSH,)), (ssh(), ()), (replace(ssh("9.2"), method=""), ())],
    ids=["again", "asked", "product"],
)
def test_a_second_look_in_the_same_run_confirms_an_open_port(port: Port, twice: tuple[Key, ...]) -> None:
    memory = Memory()
    folded = memory.run(look(port), twice=twice)
    assert folded.doubts == ()
    assert memory.told() == ["host_new", "port_opened"]


def test_a_port_that_was_seen_open_once_and_never_again_is_nothing() -> None:
    memory = Memory()
    memory.run(look(BARE))
    memory.run(look())
    memory.run(look(BARE))
    assert memory.told() == ["host_new"]
    assert memory.run(look()).state.ports == {}


def test_one_miss_closes_nothing_and_two_in_a_row_do_once(memory: Memory) -> None:
    for _ in range(10):
        assert memory.run(look(others="filtered")).doubts == (SSH,)
        memory.run(look(BARE))
    memory.run(look(others="filtered"))
    assert memory.told() == [], "and loss is no flapping"
    assert memory.run(look()).changes == (Change("port_closed", SSH, "open", "closed"),)
    memory.run(look())
    assert memory.told() == ["port_closed"]
    assert memory.state.ports[SSH].last_seen == 2200


@pytest.mark.parametrize(("others", "kind"), [("closed", "port_closed"), ("filtered", "port_filtered")])
def test_a_second_look_in_the_same_run_closes_a_port(memory: Memory, others: str, kind: str) -> None:
    memory.run(look(others=others), twice=(SSH,))
    assert memory.told() == [kind]


def test_a_closed_port_that_turns_silent_is_told_and_one_that_opens_again_too(memory: Memory) -> None:
    for others in ("closed", "closed", "filtered", "filtered", "filtered"):
        memory.run(look(others=others))
    assert memory.told() == ["port_closed", "port_filtered"]
    memory.run(look(BARE))
    memory.run(look(BARE))
    assert memory.told() == ["port_opened"]


def test_two_looks_that_miss_in_different_ways_close_an_open_port_but_do_not_turn_a_closed_one(memory: Memory) -> None:
    memory.run(look(others="filtered"))
    memory.run(look(others="closed"))
    assert memory.told() == ["port_closed"]
    memory.run(look(others="filtered"))
    memory.run(look(BARE))
    memory.run(look(others="filtered"))
    assert memory.told() == []


def test_what_a_run_did_not_ask_stays_as_it_was(memory: Memory) -> None:
    before = memory.state.ports[SSH]
    elsewhere = Host("10.0.0.1", "up", "syn-ack", rest=(Rest("tcp", "closed", "reset", ((23, 100),)),))
    for _ in range(5):
        memory.run(elsewhere)
        memory.run(None, covered=False)
        memory.run(Host("10.0.0.1", "up", "syn-ack", rest=(Rest("udp", "closed", "", ALL),)))
        memory.run(look(others="unfiltered"))
    assert (memory.told(), memory.state.ports[SSH]) == ([], before)


def test_a_degraded_or_unfinished_run_closes_nothing_and_still_opens(memory: Memory) -> None:
    for _ in range(5):
        memory.run(look(), UNTRUSTED, twice=(SSH,))
        memory.run(None, UNTRUSTED, twice=(HOST,))
    memory.run(look(Port("tcp", 80, "open", "syn-ack")), UNTRUSTED, twice=(WEB,))
    assert memory.told() == ["port_opened"]
    memory.run(look(Port("tcp", 80, "open", "syn-ack")))
    assert memory.told() == [], "what it missed did not count"


def test_a_host_that_is_gone_is_one_change_and_its_ports_are_as_they_were_when_it_is_back(memory: Memory) -> None:
    assert memory.run(None).doubts == (HOST,)
    silent = Host("10.0.0.1", "up", "user-set", rest=(Rest("tcp", "filtered", "no-response", ALL),))
    memory.run(silent)
    memory.run(None)
    assert memory.told() == ["host_gone"]
    assert memory.state.ports[SSH].state == "open"
    memory.run(look(BARE))
    assert memory.told() == ["host_new"]


def test_an_address_that_nobody_ever_had_is_not_gone() -> None:
    memory = Memory()
    memory.run(None)
    memory.run(None)
    assert (memory.told(), memory.state) == ([], HostState())


def test_a_port_that_comes_and_goes_is_told_as_flapping_once_and_then_when_it_is_steady(memory: Memory) -> None:
    for turn in range(20):
        memory.run(look() if turn % 2 else look(BARE))
    assert memory.told() == ["flapping"]
    assert memory.state.ports[SSH].flapping == BY_STATE
    for _ in range(2):
        memory.run(look())
        assert memory.told() == []
    memory.run(look())
    assert memory.told() == ["port_closed"], "steady, and not what was told last"
    assert memory.state.ports[SSH].flapping == 0
    for _ in range(5):
        memory.run(look())
    assert memory.told() == []


def test_a_port_that_settles_as_it_was_told_last_is_not_told_again(memory: Memory) -> None:
    for turn in range(9):
        memory.run(look() if turn % 2 else look(BARE))
    assert memory.told() == ["flapping"]
    for _ in range(10):
        memory.run(look(BARE))
    assert (memory.told(), memory.state.ports[SSH].flapping) == ([], 0)
    memory.run(look())
    memory.run(look())
    assert memory.told() == ["port_closed"], "and later changes are told as ever"


def test_a_host_that_comes_and_goes_is_flapping_too(memory: Memory) -> None:
    for turn in range(20):
        memory.run(look(BARE) if turn % 2 else None, twice=(HOST,))
    assert memory.told() == ["host_gone", "host_new", "flapping"]
    for _ in range(6):
        memory.run(None)
    assert memory.told() == ["host_gone"]


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (ssh("9.2"), ssh("9.3"), ["version_changed"]),
        (ssh("9.2", extrainfo="Debian"), ssh("9.2", extrainfo="Ubuntu"), ["version_changed"]),
        (ssh("9.2"), replace(ssh("9.2"), product="Dropbear"), ["service_changed"]),
        (ssh("9.2"), replace(ssh(), service="http"), ["service_changed"]),
        (ssh("9.2"), ssh("9.2", tunnel="ssl"), ["tls_added"]),
        (ssh("9.2", tunnel="ssl"), ssh("9.2"), ["tls_removed"]),
        (ssh("9.2", tunnel="ssl"), ssh("9.3"), ["version_changed", "tls_removed"]),
        (ssh("9.2"), ssh(), []),
        (ssh(), ssh("9.2"), []),
        (ssh("9.2"), BARE, []),
        (ssh("9.2"), replace(BARE, service="http", method="table"), []),
        (ssh("9.2"), replace(ssh(), service="tcpwrapped"), []),
        (ssh("9.2"), replace(ssh(), service=""), []),
        (replace(BARE, service="http", method="table"), ssh("9.2"), []),
        (ssh("9.2", tunnel="ssl"), BARE, []),
    ],
)
def test_another_service_is_told_and_a_look_that_says_less_is_not(before: Port, after: Port, kinds: list[str]) -> None:
    memory = Memory()
    memory.run(look(before), twice=(SSH,))
    memory.told()
    memory.run(look(after))
    memory.run(look(after))
    assert memory.told() == kinds


def test_what_a_better_look_told_is_kept_through_a_worse_one() -> None:
    memory = Memory()
    shown_once = Certificate("ab" * 32, "CN=a")
    memory.run(look(replace(ssh("9.2", tunnel="ssl", extrainfo="Debian"), certificate=shown_once)))
    known = memory.state.ports[SSH].service
    for less in (BARE, ssh(), replace(ssh("9.2", tunnel="ssl"), extrainfo=""), replace(ssh(), service="tcpwrapped")):
        memory.run(look(replace(less, tunnel=less.tunnel or "ssl" if less.method else "")))
        assert memory.state.ports[SSH].service == known
    memory.run(look(replace(ssh("9.2", tunnel="ssl"), certificate=Certificate("cd" * 32, "CN=b"))))
    assert memory.changes[-1] == Change("certificate_changed", SSH, f"{'ab' * 8} CN=a", f"{'cd' * 8} CN=b")


def test_services_that_take_turns_behind_one_address_are_flapping() -> None:
    memory = Memory()
    for turn in range(12):
        memory.run(look(ssh(f"9.{turn % 2}")))
    told = memory.told()
    assert told[:2] == ["host_new", "port_opened"]
    assert Counter(told[2:]) == {"version_changed": 2, "flapping": 1}
    assert memory.state.ports[SSH].flapping == BY_SERVICE
    for _ in range(6):
        memory.run(look(ssh("9.7")))
    assert memory.told() == ["version_changed"]
    assert memory.state.ports[SSH].flapping == 0


def test_a_service_that_is_another_at_each_look_flaps_on_and_is_told_when_four_looks_were_the_same() -> None:
    memory = Memory()
    for turn in range(20):
        memory.run(look(ssh(f"9.{turn}")))
    assert Counter(memory.told()) == {"host_new": 1, "port_opened": 1, "version_changed": 2, "flapping": 1}
    assert memory.state.ports[SSH].flapping == BY_SERVICE
    for _ in range(3):
        memory.run(look(ssh("9.50")))
    assert memory.told() == []
    memory.run(look(ssh("9.50")))
    assert memory.told() == ["version_changed"]
    assert (memory.state.ports[SSH].flapping, memory.state.ports[SSH].service.version) == (0, "9.50")


def test_a_service_that_settles_as_it_was_told_last_is_not_told_again() -> None:
    memory = Memory()
    for turn in range(8):
        memory.run(look(ssh(f"9.{turn % 2}")))
    memory.told()
    last = memory.state.ports[SSH].service.version
    for _ in range(8):
        memory.run(look(ssh(last)))
    assert (memory.told(), memory.state.ports[SSH].flapping) == ([], 0)


def test_a_service_that_says_how_late_it_is_has_not_changed() -> None:
    memory = Memory()
    for day in range(10, 20):
        memory.run(look(ssh("9.2", extrainfo=f"up since 2026-11-{day} 02:30:00")))
    assert memory.told() == ["host_new", "port_opened"]
    memory.run(look(ssh("9.2", extrainfo="Debian, up since 2026-11-20 02:30:00")))
    assert memory.told() == ["version_changed"]


def test_a_host_that_answers_for_everything_does_not_fill_the_memory() -> None:
    memory = Memory()
    memory.run(
        Host("10.0.0.1", "up", "syn-ack", ports=tuple(Port("tcp", n, "open", "syn-ack") for n in range(1, 9000)))
    )
    assert len(memory.state.ports) == PORTS_LIMIT
    memory.run(Host("10.0.0.1", "up", "syn-ack", rest=(Rest("tcp", "open", "syn-ack", ((1, 65535),)),)))
    assert {port.state for port in memory.state.ports.values()} == {"open"}


def test_a_run_of_the_past_adds_to_what_is_known_and_overrules_nothing(memory: Memory) -> None:
    past = Policy(closing=False, late=True, source="import")
    older = fold(memory.state, look(ssh("8.0"), Port("tcp", 80, "open", "syn-ack")), True, past, 50.0, (WEB,))
    assert older.state.ports[SSH] == msgspec.structs.replace(memory.state.ports[SSH], first_seen=50.0)
    assert older.state.first_seen == 50.0
    assert (older.state.ports[WEB].state, older.state.ports[WEB].source) == ("open", "import")
    assert fold(memory.state, None, True, replace(past, closing=True), 50.0, (HOST,)).state == memory.state


REPORT = Policy(late=True, source="import")


def test_reports_of_others_close_what_reports_opened_when_two_in_a_row_have_missed_it() -> None:
    memory = Memory()
    for _ in range(2):
        memory.run(look(BARE), REPORT)
    assert memory.told() == ["host_new", "port_opened"]
    memory.run(look(), REPORT)
    # The same moment is the same look, if in another file.
    memory.take(fold(memory.state, look(), True, REPORT, memory.now, ()))
    memory.take(fold(memory.state, None, True, REPORT, memory.now, ()))
    assert memory.told() == []
    memory.run(look(), REPORT)
    assert memory.told() == ["port_closed"]
    memory.run(None, REPORT)
    memory.run(None, REPORT, covered=False)
    assert memory.told() == []
    memory.run(None, REPORT)
    assert memory.told() == ["host_gone"]


def test_reports_of_others_close_nothing_that_the_scan_itself_or_a_capture_found(memory: Memory) -> None:
    before = memory.state
    for seen in (look(), look(), None, None):
        memory.run(seen, REPORT)
    assert memory.told() == []
    assert memory.state.ports == before.ports
    memory.run(None)
    assert memory.told() == [], "what a report has missed counts for nothing besides a look of its own"


def test_a_capture_opens_and_refreshes_and_what_a_run_saw_later_stays(memory: Memory) -> None:
    memory.take(fold_passive(memory.state, SSH, 90.0, 250.0))
    assert (memory.told(), memory.state.ports[SSH].last_seen) == ([], 250.0)
    memory.run(look())
    memory.take(fold_passive(memory.state, SSH, 90.0, 310.0))
    memory.run(look())
    assert memory.told() == [], "somebody got an answer between the two misses"
    memory.run(look())
    assert memory.told() == ["port_closed"]
    memory.take(fold_passive(memory.state, SSH, 90.0, 490.0))
    assert memory.told() == []
    memory.take(fold_passive(memory.state, SSH, 90.0, 510.0))
    assert memory.told() == ["port_opened"]
    assert memory.state.ports[SSH].source == "passive"
    memory.take(fold_passive(memory.state, ("udp", 53), 520.0, 520.0))
    memory.take(fold_passive(memory.state, ("udp", 53), 520.0, 520.0))
    assert memory.told() == ["port_opened"]
    memory.take(fold_passive(memory.state, WEB, 520.0, 530.0, looked=540.0))
    assert memory.told() == [], "a run has asked that port since"


def test_a_capture_brings_back_a_host_that_was_gone_but_not_from_before(memory: Memory) -> None:
    memory.run(None, twice=(HOST,))
    memory.told()
    assert fold_passive(memory.state, WEB, 200.0, 299.0) == Folded(memory.state, (), ())
    memory.take(fold_passive(memory.state, WEB, 200.0, 301.0))
    assert memory.told() == ["host_new", "port_opened"]


# -- histories ---------------------------------------------------------------------------------------------------------

PORTS = (1, 2, 3)
Look = tuple[set[int], set[int], set[int], bool, bool, bool]


@st.composite
def runs(draw: st.DrawFn) -> list[Look]:
    """For each run: ports that are open, asked, lost on the way; the host lost; the run trusted; looked at twice."""
    ports = st.sets(st.sampled_from(PORTS))
    rare = st.integers(0, 3).map(lambda number: number == 0)
    return draw(st.lists(st.tuples(ports, ports, ports, rare, st.booleans(), rare), max_size=24))


def seen(is_open: set[int], asked: set[int], lost: set[int]) -> Host:
    ports = tuple(Port("tcp", n, "open", "syn-ack") for n in PORTS if n in asked & is_open - lost)
    silent, shut = asked & lost & is_open, asked - is_open
    rest = [
        Rest("tcp", state, "", tuple((n, n) for n in sorted(found)))
        for state, found in (("filtered", silent), ("closed", shut))
        if found
    ]
    return Host("10.0.0.1", "up", "arp-response", ports=ports, rest=tuple(rest))


@settings(max_examples=300, deadline=None)
@given(runs())
def test_nothing_is_closed_without_enough_covered_misses_nor_told_twice(
    history: list[tuple[set[int], set[int], set[int], bool, bool, bool]],
) -> None:
    memory = Memory()
    misses = Counter[int]()
    absent = 0
    last: dict[Key, str] = {}
    for is_open, asked, lost, host_lost, trusted, twice in history:
        observed = None if host_lost else seen(is_open, asked, lost)
        keys = tuple(("tcp", n) for n in PORTS) if twice else ()
        folded = memory.run(observed, Policy(closing=trusted), twice=(*keys, HOST) if twice else ())
        weight = 2 if twice else 1
        if observed is None:
            absent += weight * trusted
        else:
            absent = 0
            for n in asked:
                if n in is_open - lost:
                    misses[n] = 0
                elif trusted:
                    misses[n] += weight
        for change in folded.changes:
            number = change.port[1]
            if change.kind in ("port_closed", "port_filtered"):
                assert trusted
                assert misses[number] >= 2
            elif change.kind == "host_gone":
                assert trusted
                assert absent >= 2
            elif change.kind == "port_opened":
                assert number in is_open & asked - lost
            if change.kind != "flapping":
                assert change.old != change.new
                assert last.get(change.port, "") == change.old, "each change starts where the last one ended"
                last[change.port] = change.new
        for key, port in folded.state.ports.items():
            assert last.get(key, "") == port.state, "what was told is what is believed"
        again = fold(folded.state, None, False, Policy(), memory.now + 1)
        assert again == Folded(folded.state, (), ())


@settings(max_examples=150, deadline=None)
@given(runs(), st.lists(st.tuples(st.sampled_from(PORTS), st.integers(-3, 3)), min_size=24, max_size=24))
def test_a_capture_closes_nothing_and_what_was_told_stays_what_is_believed(
    history: list[Look], sighted: list[tuple[int, int]]
) -> None:
    """Sightings up to three runs old or ahead fall between the runs, each of them twice."""
    memory = Memory()
    last: dict[Key, str] = {}
    for (is_open, asked, lost, host_lost, trusted, twice), (number, age) in zip(history, sighted, strict=False):
        observed = None if host_lost else seen(is_open, asked, lost)
        keys = tuple(("tcp", n) for n in PORTS)
        changes = list(memory.run(observed, Policy(closing=trusted), twice=(*keys, HOST) if twice else ()).changes)
        before = memory.state
        when = memory.now + 100 * age + 50
        folded = memory.take(fold_passive(memory.state, ("tcp", number), when - 10, when))
        assert {change.kind for change in folded.changes} <= {"host_new", "port_opened", "flapping"}
        assert memory.take(fold_passive(memory.state, ("tcp", number), when - 10, when)).changes == ()
        if age < 0 and before.state == "up":
            looked = before.ports[key].last_looked if (key := ("tcp", number)) in before.ports else 0.0
            assert when >= looked or folded.changes == (), "a run has looked since"
        for key, port in before.ports.items():
            after = folded.state.ports[key]
            assert port.state in (after.state, "", "closed", "filtered")
            assert after.last_seen >= port.last_seen
        for change in (*changes, *folded.changes):
            if change.kind != "flapping":
                assert last.get(change.port, "") == change.old
                last[change.port] = change.new
        assert all(last.get(key, "") == port.state for key, port in memory.state.ports.items())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=30))
def test_a_port_without_loss_ends_as_what_it_is(truth: list[bool]) -> None:
    """However it came and went: once it stands still, that is told, and then nothing more."""
    memory = Memory()
    for is_open in truth:
        memory.run(look(BARE) if is_open else look())
    for is_open in (True, False):
        for _ in range(8):
            memory.run(look(BARE) if is_open else look())
        memory.told()
        port = memory.state.ports[SSH]
        assert (port.state, port.flapping) == ("open" if is_open else "closed", 0)
        for _ in range(8):
            memory.run(look(BARE) if is_open else look())
        assert memory.told() == []


@given(st.lists(st.booleans(), max_size=20))
def test_a_history_knows_its_last_looks(bits: list[bool]) -> None:
    history = 1
    for bit in bits:
        history = shown(history, bit)
    kept = bits[-8:]
    assert looks(history) == len(kept)
    assert turns(history) == sum(one != other for one, other in pairwise(kept))
    assert steady(history, 4) == (len(kept) >= 4 and len(set(kept[-4:])) == 1)
