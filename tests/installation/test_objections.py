"""What stands in the way: named, all of it, and nothing that does not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.installation.entry import Directory, File, Found, Link, Strange
from agent.installation.objections import objections, older
from agent.installation.plan import Seen, install
from agent.installation.record import Record
from agent.installation.steps import Point, Write
from tests.installation.world import World, digest, goal

GOAL = goal("/srv", "0.1.0", "a")
PATHS = [entry.path for entry in (*GOAL.tree, *GOAL.setup, *GOAL.rest)]


def object_to(seen: Seen, **others: bool) -> list[str]:
    return objections(GOAL, seen, foreign_units={}, shipped=(), **{"force": False, **others})


def things(path: str) -> st.SearchStrategy[Found]:
    return st.sampled_from(
        [Directory(path), File(path, "0644", digest("theirs")), Link(path, "theirs"), Strange(path, "a pipe")]
    )


SCENES = st.sets(st.sampled_from(PATHS)).flatmap(lambda paths: st.tuples(*map(things, sorted(paths))))


@given(SCENES)
def test_without_an_objection_no_step_replaces_anything(scene: tuple[Found, ...]) -> None:
    seen = Seen(entries={found.path: found for found in scene})
    replaced = [
        step.entry.path for step in install(GOAL, seen).steps if isinstance(step, Write | Point) and step.replace
    ]
    named = {line.split(" ", 1)[0] for line in object_to(seen)}
    assert set(replaced) <= named
    assert all("\n" not in line for line in object_to(seen))


def test_to_what_was_laid_by_us_there_is_no_objection() -> None:
    world = World("/srv", {"/srv": Directory("/srv")})
    for step in install(GOAL, world.see(GOAL)).steps:
        world.do(step)
    assert object_to(world.see(GOAL)) == []
    newer = goal("/srv", "0.2.0", "a")
    assert objections(newer, world.see(newer), foreign_units={}, shipped=(), force=False) == []


@pytest.mark.parametrize("force", [False, True])
def test_what_was_changed_since_is_replaced_only_by_force(force: bool) -> None:
    unit = next(entry for entry in GOAL.rest if entry.path.endswith("agent.service"))
    changed = File(unit.path, "0644", digest("changed"))
    old = File(unit.path, "0644", digest("old"))
    seen = Seen(record=Record("/srv", laid=(old,)), entries={unit.path: changed})
    assert bool(object_to(seen, force=force)) != force
    assert object_to(msgspec.structs.replace(seen, entries={unit.path: old})) == []


def test_a_version_is_older_than_what_is_installed_or_not() -> None:
    for installed, expected in (("0.1.1", "0.1.1"), ("0.1.0", None), ("0.0.9", None), ("", None), ("0.1.10", "0.1.10")):
        assert older(GOAL, Seen(record=Record("/srv", installed))) == expected
    assert older(GOAL, Seen()) is None


def test_the_release_is_not_older_than_what_led_to_it() -> None:
    release, candidate = goal("/srv", "0.2.0", "a"), goal("/srv", "0.2.0-rc1", "a")
    for before in ("0.2.0-rc1", "0.2.0rc2", "0.2.0.dev1"):
        assert older(release, Seen(record=Record("/srv", before))) is None
    assert older(candidate, Seen(record=Record("/srv", "0.2.0"))) == "0.2.0"


def test_where_tmpfiles_would_make_a_directory_nothing_else_may_be() -> None:
    assert object_to(Seen(obstructed=("/srv/run",))) == [
        "/srv/run is no directory, and one is needed there: move it away"
    ]
