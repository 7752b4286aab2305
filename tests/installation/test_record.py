"""The record of an installation: what is written is read, and what cannot be believed is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import RuntimeFailure
from agent.installation.entry import Directory, Entry, File, Link
from agent.installation.record import Record, decode, encode, named, order, place, read, version_of

PLACES = st.sampled_from(["/srv", "/srv/lib/agent/0.1.0/agentctl", "/etc/systemd/system/agent.service", "/srv/bin"])
ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Directory, PLACES),
    st.builds(File, PLACES, st.sampled_from(["0644", "0755"]), st.sampled_from(["0" * 64, "a" * 64])),
    st.builds(Link, PLACES, st.text(max_size=10)),
)


@given(st.lists(ENTRIES).map(tuple), st.booleans(), st.sampled_from(["", "0.1.0"]))
def test_what_is_written_is_read(laid: tuple[Entry, ...], complete: bool, version: str) -> None:
    record = Record("/srv", version, complete=complete, laid=laid, data=("/srv/run",), users=("agent",))
    assert decode(encode(record), "/srv") == record


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/usr/bin/sh", "/usr/local/bin/other", "srv/x", "/srv/../etc/passwd", "/srv//x", "/srv2/x", "/"],
)
def test_a_place_where_nothing_is_ever_laid_makes_a_record_worthless(path: str) -> None:
    for record in (Record("/srv", laid=(Link(path, "x"),)), Record("/srv", data=(path,))):
        with pytest.raises(RuntimeFailure, match=r"/srv/lib/agent/install\.json: names "):
            decode(encode(record), "/srv")


def test_directories_on_the_way_to_any_place_are_fine() -> None:
    record = Record("/opt/a/b", laid=tuple(Directory(path) for path in ("/opt", "/opt/a", "/etc", "/etc/systemd")))
    assert decode(encode(record), "/opt/a/b") == record


def test_the_record_of_another_prefix_is_not_this_ones() -> None:
    with pytest.raises(RuntimeFailure, match="is the record of '/opt/agent'; do not move an installation"):
        decode(encode(Record("/opt/agent")), "/srv")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"prefix": "/srv", "format": 2}',
        b"\xff",
        b'{"prefix": 1}',
        b'{"prefix": "\xff"}',
        b"[" * 9999,
    ],
)
def test_what_is_no_record_is_refused_in_a_line(data: bytes) -> None:
    with pytest.raises(RuntimeFailure, match="is no record that this agentctl can read") as raised:
        decode(data, "/srv")
    assert "\n" not in str(raised.value)


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    try:
        decode(data, "/srv")
    except RuntimeFailure as error:
        assert str(error).startswith(place("/srv"))


def written(root: Path, data: bytes = encode(Record("/srv"))) -> Path:
    path = root / "srv/lib/agent/install.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    path.chmod(0o644)
    return path


def test_without_a_record_there_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, "/srv") is None
    (tmp_path / "srv").touch()
    assert read(tmp_path, "/srv") is None


def test_a_record_is_read_where_root_alone_could_have_written_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert read(tmp_path, "/srv") == Record("/srv")
    for mode in (0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(RuntimeFailure, match="others than root could have written it"):
            read(tmp_path, "/srv")
    path.chmod(0o644)
    os.chown(path, 65534, 65534)
    with pytest.raises(RuntimeFailure, match="others than root could have written it"):
        read(tmp_path, "/srv")


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_something_else_in_its_place_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path)
    path.unlink()
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(RuntimeFailure, match=r"/srv/lib/agent/install\.json: "):
        read(tmp_path, "/srv")


def test_a_path_in_two_forms_is_named_with_both() -> None:
    one, other = Link("/srv/x", "1"), Link("/srv/x", "2")
    assert named(Record("/srv", laid=(one, Directory("/srv"), other))) == {
        "/srv/x": (one, other),
        "/srv": (Directory("/srv"),),
    }
    assert named(None) == {}


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/srv/lib/agent/0.1.0", "0.1.0"),
        ("/srv/lib/agent/0.1.0/lib/x", "0.1.0"),
        ("/srv/lib/agent/current", None),
        ("/srv/lib/agent/install.json", None),
        ("/srv/lib/agent", None),
        ("/srv/lib/agents/0.1.0", None),
        ("/etc/0.1.0", None),
    ],
)
def test_a_path_tells_of_which_version_it_is(path: str, version: str | None) -> None:
    assert version_of(path, "/srv") == version


ORDERED = [
    *("0.1.dev1", "0.1.0", "0.1.2", "0.1.10", "0.2", "0.2.0.dev1", "0.2.0.dev2+gabc", "0.2.0a1", "0.2.0b1"),
    *(
        "0.2.0-rc1.dev3",
        "0.2.0-rc1",
        "0.2.0rc2",
        "0.2.0~rc10",
        "0.2.0",
        "0.2.0+1",
        "0.2.0+1.x",
        "0.2.0+2",
        "0.2.0.post1",
    ),
    *("0.2.0.1", "0.2.1.dev1", "0.2.1", "0.10.0", "1", "1.0.dev1", "1.0", "1.0.0", f"1.{'9' * 5000}.0"),
]
"""Each is newer than the one before."""

VERSIONS = st.one_of(
    st.sampled_from(ORDERED),
    st.lists(st.sampled_from(["0", "1", "02", "10", "rc", "dev", "post", "x", ".", "-", "+"]), max_size=8).map("".join),
    st.text(max_size=8),
)


def test_versions_are_ordered_by_their_numbers_and_what_comes_before_a_release_by_its_word() -> None:
    assert sorted({*ORDERED}, key=order) == ORDERED
    assert len({order(version) for version in ORDERED}) == len(ORDERED)


@pytest.mark.parametrize("release", ["0.2.0", "1.0", "1", "0.2.0.1", "10.20"])
def test_a_release_is_newer_than_whatever_came_before_it_and_older_than_what_is_built_on_it(release: str) -> None:
    for before in (".dev1", "dev", "a1", "-alpha.1", "b2", "rc1", "-rc1", "-rc.1", ".rc1", "~rc1", "rc1+build"):
        assert order(release + before) < order(release)
    for after in ("+x", "+1", "+1.dirty", ".post1", "-post1", ".0", ".1"):
        assert order(release) < order(release + after)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_any_versions_have_an_order_in_which_nothing_goes_round(one: str, two: str, three: str) -> None:
    low, middle, high = sorted(map(order, (one, two, three)))
    assert low <= middle <= high and low <= high
    assert (order(one) < order(two)) + (order(two) < order(one)) + (order(one) == order(two)) == 1
