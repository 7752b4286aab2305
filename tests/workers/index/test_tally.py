"""Cut packets are counted once, whatever becomes of the process that counts them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.catalogue import Segment
from agent.workers.index.tally import Tally

SINCE = 1000


def open_segment(interface: str, begin: int = SINCE) -> Segment:
    return Segment(begin, interface, Path(f"/nowhere/{interface}/{begin}.part"))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.sampled_from(["add", "settle", "forget"]))))
def test_what_was_found_counts_unless_it_is_to_be_found_again(steps: list[tuple[int, int, str]]) -> None:
    tally, settled, growing = Tally(SINCE), dict[str, int](), dict[int, int]()
    for number, cut, step in steps:
        interface = f"eth{number % 2}"
        if step == "add":
            tally.add((1, number), open_segment(interface), cut)
            growing[number] = growing.get(number, 0) + cut
        elif step == "settle":
            tally.settle((1, number))
            settled[interface] = settled.get(interface, 0) + growing.pop(number, 0)
        else:
            tally.forget((1, number))
            growing.pop(number, None)
    for number, cut in growing.items():
        settled[f"eth{number % 2}"] = settled.get(f"eth{number % 2}", 0) + cut
    assert {name: cut for name, cut in tally.cut.items() if cut} == {name: cut for name, cut in settled.items() if cut}


def test_what_an_earlier_capture_wrote_does_not_count() -> None:
    tally = Tally(SINCE)
    tally.add((1, 1), open_segment("eth0", SINCE - 1), 5)
    tally.settle((1, 1))
    assert tally.cut == {}
