"""The text of an expectation: hosts that look alike share a table, and what strangers say means itself."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.cli.expect_text import Opened, tables, text
from agent.declaration.check import LONGEST_NAME
from agent.declaration.load import load_text
from agent.declaration.schema import MOST_ITEMS
from agent.paths import Paths
from agent.workers.scan.found import Port
from agent.workers.watch.expectation import Wanted, differs
from agent.workers.watch.from_declaration import Names, expectation

SSH = Opened("tcp", 22, "ssh", "OpenSSH 9.2p1")


def test_hosts_that_look_alike_share_a_table() -> None:
    made = tables(
        "lan",
        [
            ("10.0.0.1", frozenset({SSH})),
            ("10.0.0.2", frozenset({SSH, Opened("tcp", 80), Opened("tcp", 81), Opened("udp", 53)})),
            ("10.0.0.3", frozenset({SSH})),
            ("10.0.0.4", frozenset[Opened]()),
        ],
    )
    assert [(one.name, one.hosts) for one in made] == [("lan_1", ("10.0.0.1", "10.0.0.3")), ("lan_2", ("10.0.0.2",))]
    written = text(made, "run 3 of lan")
    assert written.startswith("# What run 3 of lan found open, for you to edit")
    assert tomllib.loads(written)["expect"]["lan_2"] == {
        "hosts": ["10.0.0.2"],
        "open": [{"port": "tcp/22", "service": "ssh", "version": "OpenSSH 9.2p1"}, "80-81,udp/53"],
        "others": False,
    }


def test_one_table_has_the_name_itself_and_very_many_hosts_have_several() -> None:
    assert [one.name for one in tables("lan", [("10.0.0.1", frozenset({SSH}))])] == ["lan"]
    many = [(f"10.0.{number >> 8}.{number & 255}", frozenset({SSH})) for number in range(MOST_ITEMS + 1)]
    assert [(one.name, len(one.hosts)) for one in tables("lan", many)] == [("lan_1", MOST_ITEMS), ("lan_2", 1)]


def test_a_long_name_leaves_room_for_the_number_of_the_table() -> None:
    name = "l" * LONGEST_NAME
    assert [one.name for one in tables(name, [("10.0.0.1", frozenset({SSH}))])] == [name]
    made = tables(name, [(f"10.0.0.{number}", frozenset({Opened("tcp", number)})) for number in range(1, 12)])
    assert [len(one.name) for one in made] == [LONGEST_NAME] * 11
    assert set(load_text(text(made, "x"), Paths.of("/nonexistent"), {}).expects) == {one.name for one in made}


words = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from(" $[]*?\"'\\#{}"), max_size=30
)


@given(st.dictionaries(st.integers(1, 9), st.tuples(words, words), min_size=1, max_size=4))
def test_whatever_strangers_call_themselves_is_read_back_as_what_they_are(said: dict[int, tuple[str, str]]) -> None:
    ports = frozenset(Opened("tcp", number, *known) for number, known in said.items())
    written = text(tables("lan", [("10.0.0.1", ports)]), "a scan")
    declared = load_text(written, Paths.of("/nonexistent"), {}).expects["lan"]
    held = expectation(declared, Names())
    assert {(one.protocol, one.port) for one in held.open} == {("tcp", number) for number in said}
    for wanted in held.open:
        service, version = said[wanted.port]
        found = Port("tcp", wanted.port, "open", "", service, "", version, method="probed")
        assert differs(wanted, found) is None
        other = Port("tcp", wanted.port, "open", "", f"{service}x", "", version, method="probed")
        assert differs(wanted, other) == ("service" if wanted.service else None)
    assert all(isinstance(one, Wanted) for one in held.open)


def test_a_name_of_a_scan_makes_a_name_of_an_expectation(tmp_path: Path) -> None:
    written = text(
        tables("lan_scan", [("fe80::1%eth0", frozenset({SSH})), ("fd00::1", frozenset({SSH}))]), "x\n[agent]"
    )
    declared = load_text(written, Paths.of(tmp_path), {})
    assert declared.expects["lan_scan"].hosts == ("fe80::1%eth0", "fd00::1")
