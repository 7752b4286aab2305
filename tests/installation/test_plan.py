"""Steps of an installation: they lead where they should, are none the second time, and can be cut off anywhere."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.installation.entry import Directory, File, Link, within
from agent.installation.goal import Goal
from agent.installation.plan import Plan, install, retreat, uninstall
from agent.installation.record import library, version_of
from agent.installation.steps import Begin, End, Reload, Stop, Write
from agent.installation.units import UNITS, data
from tests.installation.world import World, bare, chain, digest, goal

PREFIXES = st.sampled_from(["/srv", "/opt/agent/here"])
VERSIONS = st.sampled_from(["0.1.0", "0.1.1", "0.2.0"])
BEFORE = [
    *("/etc", UNITS.rpartition("/")[0], UNITS, "/etc/sysusers.d", "/usr", "/usr/local", "/usr/local/bin"),
    *("/usr/local/share", "/usr/local/share/man", "/usr/local/share/man/man1", "/srv"),
    *("/srv/lib", "/srv/lib/agent", "/srv/share", "/srv/share/man", "/opt", "/opt/agent", "/srv/key"),
]
"""Directories that may be there before anybody installs anything, parents before children."""


class Install(msgspec.Struct, frozen=True):
    version: str
    build: str
    extra: str
    whole: bool


class Uninstall(msgspec.Struct, frozen=True):
    purge: bool


Operation = Install | Uninstall
OPERATIONS = st.one_of(
    st.builds(Install, VERSIONS, st.sampled_from("ab"), st.sampled_from(["", "x", "y"]), st.booleans()),
    st.builds(Install, VERSIONS, st.just("a"), st.just(""), st.just(True)),
    st.builds(Uninstall, st.booleans()),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    chosen = draw(st.sets(st.sampled_from(BEFORE)))
    there = {path for path in BEFORE if any(within(one, path) for one in chosen)}
    world = World(draw(PREFIXES), {path: Directory(path) for path in there})
    world.users = draw(st.sampled_from([set[str](), {"agent"}])).copy()
    if "/usr/local/bin" in there and draw(st.booleans()):
        world.things["/usr/local/bin/agentctl"] = Link("/usr/local/bin/agentctl", "/somebody/elses")
    if "/usr/local/share/man/man1" in there and draw(st.booleans()):
        what = draw(st.sampled_from(["/usr/local/share/man/man1", "/usr/local/share/man/man1/agentctl.1"]))
        world.things[what] = File(what, "0644", digest("somebody else's"))
    if "/srv/key" in there and draw(st.booleans()):
        world.things["/srv/key/env.toml"] = File("/srv/key/env.toml", "0600", digest("an operator's"))
    if draw(st.booleans()) and "/srv" in there:
        world.things["/srv/foreign"] = Directory("/srv/foreign")
    return world


def aim(world: World, operation: Install) -> Goal:
    wanted = goal(world.prefix, operation.version, operation.build, operation.extra)
    return wanted if operation.whole else bare(wanted)


def planned(world: World, operation: Operation) -> Plan:
    if isinstance(operation, Install):
        wanted = aim(world, operation)
        return install(wanted, world.see(wanted))
    if world.record is None:
        return Plan([], [])
    return uninstall(world.record, world.see(None), purge=operation.purge)


def carried_out(world: World, operation: Operation, *, only: int | None = None) -> World:
    """The world after an operation, or after some of its steps."""
    after = world.copy()
    for step in planned(world, operation).steps[:only]:
        after.do(step)
    return after


@st.composite
def histories(draw: st.DrawFn) -> tuple[World, Operation]:
    """A world in which things have been installed, some of them not to the end, and what comes next."""
    world = draw(worlds())
    for operation in draw(st.lists(OPERATIONS, max_size=4)):
        steps = len(planned(world, operation).steps)
        world = carried_out(world, operation, only=draw(st.none() | st.integers(0, steps)))
        world.in_use = draw(st.sets(VERSIONS, max_size=1))
    world.loaded = {path: found for path, found in world.things.items() if within(path, UNITS)}
    return world, draw(OPERATIONS)


@given(histories())
def test_what_is_wanted_is_there_afterwards_and_recorded(history: tuple[World, Operation]) -> None:
    world, operation = history
    after = carried_out(world, operation)
    if not isinstance(operation, Install):
        return
    wanted = aim(world, operation)
    for entry in (*wanted.tree, *wanted.setup, *wanted.rest):
        found = after.things[entry.path]
        assert found == entry or isinstance(found, Directory)
    assert after.record
    assert {entry.path for entry in wanted.tree if isinstance(entry, File)} <= {e.path for e in after.record.laid}
    if operation.whole:
        assert len({entry.path for entry in after.record.laid}) == len(after.record.laid), "nothing is recorded twice"
        assert after.record.complete and after.record.version == operation.version
        assert f"{world.prefix}/key/env.toml" in after.things and set(data(world.prefix)) <= set(after.things)
        assert {p: f for p, f in after.things.items() if within(p, UNITS)} == after.loaded, "systemd has read the units"


@given(histories())
def test_a_second_time_there_is_nothing_to_do(history: tuple[World, Operation]) -> None:
    world, operation = history
    assert planned(carried_out(world, operation), operation).steps == []


@given(histories(), st.data())
def test_cut_off_anywhere_the_next_run_ends_in_the_same_state(
    history: tuple[World, Operation], data: st.DataObject
) -> None:
    world, operation = history
    steps = len(planned(world, operation).steps)
    cut = carried_out(world, operation, only=data.draw(st.integers(0, steps)))
    assert carried_out(cut, operation) == carried_out(world, operation)


@given(worlds(), st.lists(st.tuples(OPERATIONS, st.floats(0, 1)), max_size=4))
def test_a_purge_leaves_the_world_as_it_was_whatever_happened_before(
    world: World, history: list[tuple[Operation, float]]
) -> None:
    after = world
    for operation, part in history:
        after = carried_out(after, operation, only=round(part * len(planned(after, operation).steps)))
    after = carried_out(after, Uninstall(purge=True))
    after.loaded = world.loaded
    if after.record is None and world.record is None:
        first = f"{world.prefix}/key/env.toml"  # one that was laid in a directory of the operator's is the operator's
        assert after.things == {path: after.things[first] for path in [first] if path in after.things} | world.things
        assert after.users == world.users


@given(worlds(), VERSIONS)
def test_what_is_taken_back_keeps_the_data_until_it_is_purged(world: World, version: str) -> None:
    world = carried_out(world, Install(version, "a", "", True))
    operators = world.things[f"{world.prefix}/key/env.toml"]
    gone = carried_out(world, Uninstall(purge=False))
    assert gone.things[f"{world.prefix}/key/env.toml"] == operators
    left = {path for path in gone.things if within(path, library(world.prefix)) or within(path, UNITS)}
    assert not {path for path in left if isinstance(gone.things[path], File)}
    assert carried_out(gone, Install(version, "a", "", True)) == world


def of_versions(world: World) -> set[str]:
    return {str(version_of(path, world.prefix)) for path in world.things} - {"None"}


def installed(*versions: str, in_use: str = "") -> World:
    world = World("/srv", {"/srv": Directory("/srv")})
    for version in versions:
        world.in_use = {in_use} if in_use else set()
        world = carried_out(world, Install(version, "a", "", True))
    return world


def test_one_version_before_the_current_one_is_kept_to_go_back_to() -> None:
    assert of_versions(installed("0.1.0")) == {"0.1.0"}
    assert of_versions(installed("0.1.0", "0.1.1")) == {"0.1.0", "0.1.1"}
    assert of_versions(installed("0.1.0", "0.1.1", "0.2.0")) == {"0.1.1", "0.2.0"}
    assert of_versions(installed("0.1.0", "0.1.1", "0.1.0", "0.2.0")) == {"0.1.0", "0.2.0"}


def test_a_version_that_somebody_executes_stays_until_the_next_time() -> None:
    world = installed("0.1.0", "0.1.1", "0.2.0", in_use="0.1.0")
    assert of_versions(world) == {"0.1.0", "0.1.1", "0.2.0"}
    world.in_use = set()
    assert of_versions(carried_out(world, Install("0.2.0", "a", "", True))) == {"0.1.1", "0.2.0"}


def test_a_tree_alone_leaves_current_and_everything_else_as_it_is() -> None:
    world = installed("0.1.0")
    after = carried_out(world, Install("0.2.0", "a", "", whole=False))
    assert {path for path in after.things if path not in world.things} == {
        path for path in after.things if within(path, "/srv/lib/agent/0.2.0")
    }
    assert after.things["/srv/lib/agent/current"] == Link("/srv/lib/agent/current", "0.1.0")


def test_current_changes_after_the_tree_is_whole_and_on_the_disk() -> None:
    steps = planned(installed("0.1.0"), Install("0.2.0", "a", "", True)).steps
    names = [getattr(getattr(step, "entry", None), "path", type(step).__name__) for step in steps]
    assert names.index("/srv/lib/agent/0.2.0/lib/same") < names.index("Sync") < names.index("/srv/lib/agent/current")
    assert names.index("/srv/lib/agent/current") < names.index("Reload")


def test_the_record_comes_first_and_goes_last() -> None:
    assert isinstance(planned(World("/srv", {}), Install("0.1.0", "a", "", True)).steps[0], Begin)
    assert isinstance(planned(installed("0.1.0"), Uninstall(purge=True)).steps[-1], End)


def test_services_are_stopped_before_anything_is_taken_away() -> None:
    steps = planned(installed("0.1.0"), Uninstall(purge=False)).steps
    assert steps[0] == Stop(("agent.service",))
    assert Reload() in steps


def test_what_was_changed_since_is_kept_and_named_unless_it_is_purged() -> None:
    world = installed("0.1.0")
    unit = f"{UNITS}/agent.service"
    world.things[unit] = File(unit, "0644", digest("edited"))
    plan = planned(world, Uninstall(purge=False))
    assert unit in plan.kept
    after = carried_out(world, Uninstall(purge=False))
    assert unit in after.things and after.record
    assert unit not in carried_out(after, Uninstall(purge=True)).things


def test_a_file_in_a_directory_of_ours_keeps_the_directory() -> None:
    world = installed("0.1.0")
    foreign = "/srv/share/man/man1/other.1"
    world.things[foreign] = File(foreign, "0644", digest("other"))
    assert "/srv/share/man/man1" in planned(world, Uninstall(purge=True)).kept
    after = carried_out(world, Uninstall(purge=True))
    assert set(after.things) == {"/srv", "/srv/share", "/srv/share/man", "/srv/share/man/man1", foreign}


def test_units_that_were_enabled_are_disabled() -> None:
    world = installed("0.1.0")
    links = [f"{UNITS}/multi-user.target.wants/agent.service", f"{UNITS}/agent-alias.service"]
    world.enabled = set(links)
    wants = links[0].rpartition("/")[0]
    world.things[wants] = Directory(wants)
    after = carried_out(world, Uninstall(purge=False))
    assert after.enabled == set() and wants not in after.things


@pytest.mark.parametrize("earlier", [(), ("0.1.0",)], ids=["first", "upgrade"])
@given(part=st.floats(0, 1))
def test_a_retreat_leads_back_to_what_was_there(earlier: tuple[str, ...], part: float) -> None:
    before = installed(*earlier)
    wanted = aim(before, Install("0.2.0", "b", "x", True))
    steps = install(wanted, before.see(wanted)).steps
    failed = before.copy()
    for step in steps[: round(part * (len(steps) - 1))]:
        failed.do(step)
    for step in retreat(before.record, failed.see(wanted)):
        failed.do(step)
    if earlier:
        failed = carried_out(failed, Install("0.1.0", "a", "", True))
    failed.loaded = before.loaded
    assert failed == before


def test_nothing_that_is_replaced_is_written_as_if_it_were_new() -> None:
    steps = planned(installed("0.1.0"), Install("0.2.0", "a", "", True)).steps
    replaced = {step.entry.path for step in steps if isinstance(step, Write) and step.replace}
    assert replaced == {f"{UNITS}/agent.service", "/srv/share/man/man1/agentctl.1"}


def test_the_directories_down_to_the_record_are_made_with_it() -> None:
    steps = planned(World("/opt/a/b", {"/opt": Directory("/opt")}), Install("0.1.0", "a", "", True)).steps
    made = {step.entry.path for step in steps if hasattr(step, "entry") and isinstance(step.entry, Directory)}
    assert not made & set(chain("/opt/a/b"))
