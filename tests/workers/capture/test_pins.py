"""Spans of time that are to stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.capture import pins
from agent.workers.capture.pins import Pin, Ranges, Watch, pin_id
from tests.workers.capture.lab import ROOT

SECOND = 10**9


def quiet(kind: str, message: str) -> None:
    raise AssertionError(f"{kind}: {message}")


def test_a_pin_is_a_file_that_says_what_and_why_and_who(tmp_path: Path) -> None:
    made = pins.add(tmp_path, 1, 2, created=1_795_183_205_123_456_789, reason="an outage\x1b[2J", by="alice")
    (file,) = tmp_path.iterdir()
    assert file.name == f"pin-{made.id}.json"
    assert file.stat().st_mode & 0o777 == 0o640
    assert json.loads(file.read_text()) == {
        "id": made.id,
        "from": 1,
        "to": 2,
        "created": 1_795_183_205_123_456_789,
        "reason": "an outage\x1b[2J",
        "by": "alice",
    }
    assert pins.read_all(tmp_path) == [made]


@given(st.lists(st.integers(0, 2**62), min_size=2))
def test_ids_sort_as_the_instants_they_were_made_at(instants: list[int]) -> None:
    ids = [pin_id(instant) for instant in sorted(instants)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {9}


def test_pins_of_one_millisecond_have_ids_of_their_own(tmp_path: Path) -> None:
    made = [pins.add(tmp_path, number, number, created=SECOND) for number in range(5)]
    assert pins.read_all(tmp_path) == made


def test_many_that_pin_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from agent.workers.capture import pins\n"
        "for _ in range(20): pins.add(Path(sys.argv[1]), int(sys.argv[2]), 9, created=7)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(number)], env={"PYTHONPATH": str(ROOT)})
        for number in range(3)
    ]
    assert [process.wait(20) for process in running] == [0, 0, 0]
    assert sorted(pin.begin for pin in pins.read_all(tmp_path)) == [0] * 20 + [1] * 20 + [2] * 20
    assert len(list(tmp_path.iterdir())) == 60


def test_their_number_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "MOST", 3)
    made = [pins.add(tmp_path, 0, 1, created=number * SECOND) for number in range(3)]
    with pytest.raises(StorageFailure, match="has 3 pins, and no more are kept"):
        pins.add(tmp_path, 0, 1, created=9 * SECOND)
    (tmp_path / f"pin-{pin_id(9 * SECOND)}.json").write_text("more, by hand")
    assert pins.read_all(tmp_path) == made


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 10_000,
        b'{"id":"000000001","from":5,"to":4,"created":1}',
        b'{"id":"000000002","from":1,"to":4,"created":1}',
        b'{"id":"000000001","from":"1","to":4,"created":1}',
        b'{"id":"000000001","from":1.5,"to":4,"created":1}',
    ],
)
def test_what_cannot_be_understood_pins_nothing_and_is_told_once(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pin-000000001.json").write_bytes(content)
    assert pins.read_all(tmp_path) == []
    told: list[str] = []
    watch = Watch(tmp_path, lambda kind, message: told.append(f"{kind}: {message}"))
    for _ in range(3):
        watch.look(0)
    assert told == ["pin_unreadable: pin-000000001.json: cannot be understood, and pins nothing"]


def test_a_planted_link_or_pipe_is_not_followed(tmp_path: Path) -> None:
    true = tmp_path / "true"
    true.mkdir()
    made = pins.add(true, 0, 1, created=SECOND)
    (tmp_path / f"pin-{made.id}.json").symlink_to(pins.path(true, made.id))
    os.mkfifo(tmp_path / "pin-000000001.json")
    assert pins.read_all(tmp_path) == []


def test_only_a_pin_is_removed(tmp_path: Path) -> None:
    made = pins.add(tmp_path, 0, 1, created=SECOND)
    (tmp_path / "store.json").write_text("{}")
    assert not pins.remove(tmp_path, "../../etc/passwd")
    assert not pins.remove(tmp_path, "000000009")
    assert pins.remove(tmp_path, made.id)
    assert not pins.remove(tmp_path, made.id)
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


spans = st.tuples(st.integers(0, 100), st.integers(0, 30)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(spans, max_size=10), spans)
def test_ranges_touch_what_any_of_them_overlaps(pinned: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
    made = [Pin(id=f"{number:09}", begin=begin, end=end, created=number) for number, (begin, end) in enumerate(pinned)]
    expected = [pin for pin in made if pin.begin <= wanted[1] and wanted[0] <= pin.end]
    ranges = Ranges(made)
    assert ranges.touching(*wanted) == expected
    assert ranges.touch(*wanted) == bool(expected)


def test_pins_that_come_and_go_are_noticed_also_within_one_tick_of_the_clock(tmp_path: Path) -> None:
    watch = Watch(tmp_path, quiet)
    now = tmp_path.stat().st_mtime_ns
    assert not watch.look(now)
    one = pins.add(tmp_path, 5, 6, created=SECOND)
    os.utime(tmp_path, ns=(now, now))
    assert watch.look(now)
    assert watch.ranges.touch(6, 9)
    assert not watch.look(now)
    pins.remove(tmp_path, one.id)
    os.utime(tmp_path, ns=(now, now))
    assert watch.look(now)
    assert len(watch.ranges) == 0


def test_a_directory_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins.add(tmp_path, 5, 6, created=SECOND)
    watch = Watch(tmp_path, quiet)
    later = tmp_path.stat().st_mtime_ns + 10 * SECOND
    assert watch.look(later)

    def never(directory: Path) -> list[str]:
        raise AssertionError(directory)

    monkeypatch.setattr(pins, "names", never)
    assert not watch.look(later)


def test_pins_stay_while_the_directory_cannot_be_read(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    pins.add(place, 5, 6, created=SECOND)
    watch = Watch(place, quiet)
    watch.look(0)
    place.rename(tmp_path / "elsewhere")
    assert not watch.look(0)
    assert watch.ranges.touch(5, 5)


@pytest.mark.parametrize("field", ["from", "to", "created"])
@pytest.mark.parametrize("number", [-1, 2**63, 10**30, 1.5e300])
def test_a_planted_pin_of_a_time_that_cannot_be_is_none(tmp_path: Path, field: str, number: float) -> None:
    made = pins.add(tmp_path, 1, 2, created=SECOND)
    told = json.loads(pins.path(tmp_path, made.id).read_text())
    pins.path(tmp_path, made.id).write_text(json.dumps({**told, field: number}))
    assert pins.read(tmp_path, made.id) is None
    assert pins.read_all(tmp_path) == []


def test_a_pin_from_before_there_was_time_begins_with_it(tmp_path: Path) -> None:
    made = pins.add(tmp_path, -5, 2**70, created=SECOND)
    assert pins.read_all(tmp_path) == [made]
    assert (made.begin, made.end) == (0, pins.LARGEST)


def test_a_pin_that_root_sets_is_for_the_user_whose_the_store_is(tmp_path: Path) -> None:
    store = tmp_path / "edge"
    store.mkdir()
    os.chown(store, 65534, 65534)
    made = pins.add(store, 1, 2, created=SECOND)
    status = pins.path(store, made.id).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o640)


def test_a_reason_that_json_cannot_hold_is_mended(tmp_path: Path) -> None:
    pins.add(tmp_path, 1, 2, created=SECOND, reason="odd \udcff", by="a\udcfe")
    assert [(pin.reason, pin.by) for pin in pins.read_all(tmp_path)] == [("odd ?", "a?")]
