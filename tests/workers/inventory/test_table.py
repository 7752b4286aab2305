"""Folding: order and repetition do not matter while there is room, and when there is none the bounds hold."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.inventory.sighting import FACTS, NAME, SEEN, SERVICE, SOURCES, Sighting
from agent.workers.inventory.table import ADDRESS, Key, Limits, Table

MACS = [f"02:00:00:00:00:0{number}" for number in range(6)]
ADDRESSES = [*(f"10.0.0.{number}" for number in range(1, 6)), "fe80::1", "fd00::1"]


@st.composite
def a_sighting(draw: st.DrawFn) -> Sighting:
    first = draw(st.integers(0, 50))
    mac, address = draw(st.sampled_from(["", *MACS])), draw(st.sampled_from(["", *ADDRESSES]))
    fact = draw(st.sampled_from((SEEN, *FACTS)))
    asker = draw(st.sampled_from(["", "", *ADDRESSES[:2]])) if fact == NAME and not mac else ""
    return Sighting(
        first,
        first + draw(st.integers(0, 20)),
        draw(st.sampled_from(SOURCES)),
        draw(st.sampled_from([0, 7])),
        mac,
        address if address or mac else ADDRESSES[0],
        fact,
        draw(st.sampled_from(["a", "b", "tcp/22", "tcp/80"])) if fact else "",
        asker,
    )


sightings = st.lists(a_sighting(), max_size=40)


def folded(told: list[Sighting], limits: Limits | None = None) -> Table:
    table = Table(limits or Limits())
    table.fold(told, "eth0")
    return table


@given(sightings, st.randoms(use_true_random=False))
def test_the_order_of_sightings_does_not_matter_nor_how_often_each_is_folded(
    told: list[Sighting], chance: random.Random
) -> None:
    again = [*told, *told]
    chance.shuffle(again)
    one, other = folded(told), folded(again)
    assert one.tables() == other.tables()
    assert one.facts == other.facts
    assert not one.evicted


@given(sightings, sightings)
def test_to_fold_at_once_or_in_parts_is_the_same(some: list[Sighting], more: list[Sighting]) -> None:
    table = folded(some)
    table.fold(more, "eth0")
    assert table.tables() == folded([*more, *some]).tables()


SMALL = Limits(hosts=3, facts=8, addresses=2, names=2, services=3, others=1)


@settings(deadline=None)
@given(sightings)
def test_every_bound_holds_whatever_comes(told: list[Sighting]) -> None:
    table = Table(SMALL)
    for sighting in told:
        table.fold([sighting], "eth0")
        assert all(len(rows) <= SMALL.hosts for rows in table.tables())
        rows = [row for rows in table.tables() for row in rows.values()]
        assert table.facts == sum(row.count() for row in rows) <= SMALL.facts
        for row in rows:
            for kind, known in row.facts.items():
                most = {ADDRESS: SMALL.addresses, NAME: SMALL.names, SERVICE: SMALL.services}
                assert len(known) <= most.get(kind, SMALL.others)


@settings(deadline=None)
@given(sightings)
def test_what_made_room_is_counted(told: list[Sighting]) -> None:
    table = folded(told, SMALL)
    everything = folded(told)
    if not table.evicted and not table.trimmed:
        assert table.tables() == everything.tables()
    else:
        assert sum(map(len, everything.tables())) > sum(map(len, table.tables())) or everything.facts > table.facts


def test_who_was_seen_the_longest_time_ago_makes_room() -> None:
    table = folded([Sighting(at, at, "arp", 0, MACS[at]) for at in (2, 1, 3, 4)], Limits(hosts=3))
    assert [key.identity for key in table.stations] == [MACS[2], MACS[3], MACS[4]]
    assert table.evicted == 1


def test_addresses_beyond_a_router_do_not_crowd_out_those_of_stations() -> None:
    table = Table(Limits(hosts=16))
    table.fold(
        [Sighting(1, 1, "arp", 0, MACS[1], "10.0.0.1"), Sighting(1, 1, "flow", 0, "", "10.0.0.1", SERVICE, "tcp/22")],
        "eth0",
    )
    for number in range(200):
        table.fold(
            [Sighting(10 + number, 10 + number, "flow", 0, "", f"198.51.100.{number}", SERVICE, "tcp/443")], "eth0"
        )
    assert Key("eth0", 0, "10.0.0.1") in table.addresses
    assert len(table.stations) == 1
    assert table.evicted >= 184


def test_a_fact_told_again_is_one_fact_with_a_longer_time() -> None:
    table = folded([Sighting(at, at, "dhcp", 0, MACS[1], "", NAME, "printer") for at in (5, 9, 2)])
    (row,) = table.stations.values()
    assert row.facts == {NAME: {("printer", "dhcp"): (2, 9, "")}}
    assert (row.first, row.last) == (2, 9)


def test_hearsay_is_kept_apart_with_who_was_told_last() -> None:
    hearsay = [Sighting(at, at, "dns", 0, "", "10.0.0.1", NAME, "www", f"10.0.0.{at}") for at in (3, 2)]
    table = folded(hearsay)
    assert not table.stations
    assert not table.addresses
    (row,) = table.heard.values()
    assert row.facts == {NAME: {("www", "dns"): (2, 3, "10.0.0.3")}}


@settings(deadline=None)
@given(sightings)
def test_the_edition_changes_whenever_other_addresses_are_known(told: list[Sighting]) -> None:
    table = Table(Limits(4, 8, 2, 2, 2, 2))
    before, known = table.edition, table.known()
    for one in told:
        table.fold([one], "eth0")
        if table.edition == before:
            assert table.known() == known
        before, known = table.edition, table.known()
