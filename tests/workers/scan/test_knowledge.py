"""What follows from what is known of a host, in whatever order it becomes known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.detect import PortKey, Stage
from agent.workers.scan.found import Host, Port
from agent.workers.scan.knowledge import Due, Knowledge
from agent.workers.scan.speak import MUTE, How

NUMBERS = (22, 25, 80, 443, 7001)
HOWS: tuple[How, ...] = get_args(How)
KEYS: list[PortKey] = [*(("tcp", number) for number in NUMBERS), ("udp", 53)]


def host(address: str = "10.0.0.1") -> Host:
    ports = [Port("tcp", number, "open", "syn-ack") for number in NUMBERS]
    return Host(address, "up", "syn-ack", ports=(*ports, Port("udp", 53, "open", "answer")))


def said(keys: list[PortKey], products: frozenset[int]) -> Host:
    ports = [
        Port(key[0], key[1], "open", "syn-ack", "s", "known" if key[1] in products else "", method="probed")  # type: ignore[arg-type]  # tcp or udp
        for key in keys
    ]
    return Host("10.0.0.1", "up", "user-set", ports=tuple(ports))


def new(_address: str, _protocol: str, _number: int) -> Due:
    return "new"


def due(_address: str, _protocol: str, _number: int) -> Due:
    return "due"


def held(_address: str, _protocol: str, _number: int) -> Due:
    return "held"


class Nmap:
    """Takes what is planned and answers it, some now and some later, as ``draw`` says."""

    def __init__(self, known: Knowledge, products: frozenset[int]) -> None:
        self.known, self.products = known, products
        self.waiting: list[tuple[Stage, list[PortKey]]] = []
        self.asked: Counter[tuple[Stage, PortKey]] = Counter()
        self.facts: list[tuple[Stage, list[PortKey], Host, bytes]] = []

    def plan(self, clock: Any) -> None:
        found = self.known.plan(clock, slow=True)
        stages: list[tuple[Stage, list[PortKey]]] = [
            ("light", found.light),
            ("light", found.odd),
            ("slow", found.slow),
            ("deep", found.deep),
        ]
        for stage, keys in stages:
            if keys:
                self.waiting.append((stage, keys))
                self.asked.update((stage, key) for key in keys)

    def answer(self, number: int) -> None:
        stage, keys = self.waiting.pop(number % len(self.waiting))
        fact = (stage, keys, said(keys, self.products), f"<{number}>".encode())
        self.facts.append(fact)
        self.known.told(*fact, frozenset())


@settings(deadline=None, max_examples=150)
@given(
    st.permutations(NUMBERS),
    st.lists(st.sampled_from(HOWS), min_size=5, max_size=5),
    st.frozensets(st.sampled_from([*NUMBERS, 53])),
    st.lists(st.integers(0, 5), min_size=20, max_size=20),
    st.sampled_from([new, due, held]),
    st.booleans(),
)
def test_every_port_is_asked_once_in_each_stage_and_a_kill_repeats_what_was_under_way(
    order: list[int], hows: list[How], products: frozenset[int], moves: list[int], clock: Any, udp: bool
) -> None:
    known = Knowledge(host(), udp=udp)
    nmap = Nmap(known, products)
    for number, how, move in zip(order, hows, moves, strict=False):
        assert not known.done
        known.heard["tcp", number] = how
        nmap.plan(clock)
        if nmap.waiting and move % 2:
            nmap.answer(move)
            nmap.plan(clock)
    known.looked = True
    nmap.plan(clock)
    again = Knowledge(host(), udp=udp)  # whoever comes after a kill now
    again.heard.update(known.heard)
    for fact in nmap.facts:
        again.told(*fact, frozenset())
    again.looked = True
    successor = Nmap(again, products)
    successor.plan(clock)
    under_way = {(stage, key) for stage, keys in nmap.waiting for key in keys}
    assert {(stage, key) for stage, keys in successor.waiting for key in keys} == under_way
    for one in (nmap, successor):
        while one.waiting:
            assert not one.known.done
            one.answer(moves.pop() if moves else 0)
            one.plan(clock)
        assert one.known.done
        assert one.known.share == 1
    assert max(nmap.asked.values(), default=0) <= 1
    first, second = known.identified(complete=True), again.identified(complete=True)
    assert (first.host, first.held) == (second.host, second.held)
    for stage, key in nmap.asked:
        how = known.heard.get(key, "protocol")
        assert how != "unreachable"
        assert (how in MUTE) == (stage == "slow")
    named = {port.number for port in first.host.ports if port.product}
    mute = {key[1] for key, how in known.heard.items() if how in MUTE and clock is not due}
    gone = {key[1] for key, how in known.heard.items() if how == "unreachable"}
    assert named == products - mute - gone - (frozenset() if udp else {53})


def test_who_never_stops_is_kept_from_nmap_and_told_of() -> None:
    known = Knowledge(host())
    known.heard.update({("tcp", number): "endless" for number in NUMBERS})
    known.looked = True
    assert known.plan(new, slow=True) == ([("udp", 53)], [], [], [])
    known.told("light", [("udp", 53)], None, b"", frozenset())
    found = known.identified(complete=True)
    assert {port.reason for port in found.host.ports if port.protocol == "tcp"} == {"syn-ack; never stops talking"}
    assert [(one.number, one.silent, one.tried) for one in found.held] == [(number, True, False) for number in NUMBERS]


def test_what_was_given_up_is_told_and_not_asked_at_length() -> None:
    known = Knowledge(host())
    known.heard.update({("tcp", number): "banner" for number in NUMBERS})
    known.looked = True
    known.plan(new, slow=True)
    known.told("light", KEYS[1:], said(KEYS[1:], frozenset(NUMBERS) | {53}), b"", frozenset())
    known.give_up("light", KEYS[:1], "too long")
    assert known.plan(new, slow=True) == ([], [], [], [])
    assert known.done
    found = known.identified(complete=True)
    assert found.host.ports[0].reason == "syn-ack; too long"
    assert [(one.number, one.silent, one.tried) for one in found.held] == [(22, False, True)]


def test_what_is_identified_already_is_not_asked_and_stays_as_it_was() -> None:
    known = Knowledge(host())
    known.heard.update({("tcp", number): "nothing" for number in NUMBERS})
    known.looked = True
    known.plan(new, slow=False)
    first = known.identified(complete=True).host
    again = Knowledge(replace(first, ports=(*first.ports, Port("tcp", 4, "open", "syn-ack"))))
    again.leave_out(KEYS)
    assert again.to_hear == [4]
    again.heard["tcp", 4] = "banner"
    again.looked = True
    assert again.plan(due, slow=True) == ([("tcp", 4)], [], [], [])
    again.told("light", [("tcp", 4)], said([("tcp", 4)], frozenset({4})), b"", frozenset())
    found = again.identified(complete=True)
    assert (found.host.ports[:-1], found.held, found.before) == (first.ports, (), frozenset(KEYS))
    assert found.host.ports[-1].product == "known"


def test_what_stands_beside_a_reason_stands_there_once_however_often_it_is_continued() -> None:
    found, reasons = host(), []
    for _ in range(3):
        known = Knowledge(found)
        known.heard.update({("tcp", number): "nothing" for number in NUMBERS})
        known.looked = True
        known.give_up("light", KEYS[-1:], "too long")
        found = known.identified(complete=False).host
        reasons.append([port.reason for port in found.ports])
    assert reasons == [["syn-ack; says nothing"] * len(NUMBERS) + ["answer; too long"]] * 3
