"""What a run asked is told of any number of its addresses alike, at a cost that goes with their number alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.memory import coverage, schema, writing
from agent.workers.scan.memory.coverage import Asked, Coverage, Outcome, asked
from agent.workers.scan.memory.place import Line
from agent.workers.scan.spans import merge

RUN = 1
ADDRESSES = [f"10.0.0.{last}" for last in range(16)] + ["fd00::1", "fe80::1%eth0"]
PARTS = st.lists(
    st.builds(
        lambda ranges, ports, outcome: Asked(Line(4, ""), merge(ranges), ports, outcome),
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)).map(lambda one: _at(*one)), min_size=1, max_size=4),
        st.sampled_from([(), (("tcp", ((1, 99),)),), (("tcp", ((22, 22),)), ("udp", ((53, 53),)))]),
        st.sampled_from(get_args(Outcome)),
    ),
    max_size=6,
)


def _at(last: int, more: int) -> tuple[int, int]:
    return (10 << 24) + last, (10 << 24) + last + more


def filled(parts: Sequence[Asked]) -> sqlite3.Connection:
    """A memory in which one run asked these, each part stored by itself, so that ranges may overlap."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection)
    for part in parts:
        writing.add_asked(connection, RUN, [part])
    return connection


@given(PARTS)
def test_read_at_once_it_says_what_it_says_one_by_one(parts: list[Asked]) -> None:
    with closing(filled(parts)) as connection:
        singly = [Coverage(connection, RUN, "here") for _ in ADDRESSES]
        at_once = Coverage(connection, RUN, "here")
        for _ in range(coverage.SINGLY):
            at_once.unseen(ADDRESSES[0])
        for address, one in zip(ADDRESSES, singly, strict=True):
            assert at_once.unseen(address) == one.unseen(address)
            assert at_once.ports(address) == one.ports(address)
            assert at_once.looked(address) == one.looked(address)


def test_a_network_of_which_every_second_address_is_silent_costs_no_more_than_its_size() -> None:
    def cost(number: int) -> int:
        """Of the looks at so many addresses, in hundreds of instructions of SQLite's machine."""
        counted = 0

        def count() -> None:
            nonlocal counted
            counted += 1

        addresses = [f"10.0.{index // 256}.{index % 256}" for index in range(number)]
        with closing(filled([one for address in addresses[::2] for one in asked([address])])) as connection:
            connection.set_progress_handler(count, 100)
            run = Coverage(connection, RUN, "here")
            assert sum(run.unseen(address)[0] == () for address in addresses) == number // 2
        return counted

    assert cost(2000) < 3 * cost(1000)
