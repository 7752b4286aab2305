"""What is handed on arrives as it was, from older versions and newer ones, and what is damaged is told in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from agent.control import baton
from agent.control.baton import FORMAT, REFUSED, VARIABLE, Inner, Outer, Received
from agent.control.console import Untold
from agent.declaration.model import AgentSettings, Declaration
from agent.errors import RuntimeFailure
from agent.linux import memfd
from agent.linux.environment import Program
from agent.supervisor.engine import SupervisorState
from agent.telemetry.events import History
from tests.linux.processes import open_fds


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


# -- every state that there can be, by the types alone: a field that is added is tested as well -----------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def values(kind: inspect.Type, depth: int = 0) -> st.SearchStrategy[Any]:
    """Everything of a type."""
    match kind:
        case inspect.AnyType():
            return JSON
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case inspect.StrType():
            return TEXT
        case inspect.BytesType():
            return st.binary(max_size=8)
        case inspect.LiteralType() | inspect.EnumType():
            return st.sampled_from(kind.values if isinstance(kind, inspect.LiteralType) else list(kind.cls))
        case inspect.UnionType():
            return st.one_of([values(each, depth) for each in kind.types])
        case inspect.ListType():
            return st.lists(values(kind.item_type, depth), max_size=2)
        case inspect.FrozenSetType():
            return st.frozensets(values(kind.item_type, depth), max_size=2)
        case inspect.VarTupleType() if depth > 8:  # a calendar holds calendars
            return st.just(())
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type, depth), max_size=2).map(tuple)
        case inspect.TupleType():
            return st.tuples(*[values(each, depth) for each in kind.item_types])
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type, depth), values(kind.value_type, depth), max_size=2)
        case inspect.StructType() | inspect.NamedTupleType():
            return st.builds(kind.cls, **{field.name: later(field.type, depth + 1) for field in kind.fields})
    raise AssertionError(f"no values of {kind} are known")


def later(kind: inspect.Type, depth: int) -> st.SearchStrategy[Any]:
    """The same, found out when it is needed: a type may hold itself."""
    return st.deferred(lambda: values(kind, depth))


STATES = values(inspect.type_info(SupervisorState))
HISTORIES = values(inspect.type_info(History))
NOTHING = SupervisorState(
    declaration=Declaration(agent=AgentSettings(server="h"), services={}),
    contained_by="sweep",
    instance="i",
    units=[],
)


def inner_of(supervisor: SupervisorState = NOTHING, history: History | None = None) -> Inner:
    return Inner(
        since=1.5,
        lock=3,
        control=4,
        remove="/srv/run/agent.sock",
        supervisor=supervisor,
        history=history or History(),
        pipes={2**40: "api"},
        console=Untold(b"\xff half a line", 3),
    )


def outer_of(inner: bytes, form: int = FORMAT) -> Outer:
    return Outer(
        format=form,
        id="1",
        version="9.9.9",
        program=Program(["/srv/lib/agent/9.9.9/agentctl"], {"A": "b"}),
        frozen_at=1.0,
        descriptors=[3, 4],
        inner=msgspec.Raw(inner),
    )


@contextmanager
def handed(data: bytes) -> Iterator[dict[str, str]]:
    """The environment of a program that was handed a file of that content."""
    fd = memfd.seal("test", data)
    os.set_inheritable(fd, True)
    try:
        yield {VARIABLE: str(fd), "HOME": "/"}
    finally:
        os.close(fd)


def arrived(data: bytes) -> Received:
    """What is made of a file of that content."""
    with handed(data) as environ:
        found = baton.received(environ)
        assert found is not None
        return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(STATES, HISTORIES)
def test_every_state_arrives_as_it_was(supervisor: SupervisorState, history: History) -> None:
    inner, outer = inner_of(supervisor, history), outer_of(b"")
    outer = msgspec.structs.replace(outer, inner=msgspec.Raw(msgspec.json.encode(inner)))
    fd = baton.seal(outer)
    try:
        environ = {VARIABLE: str(fd)}
        found = baton.received(environ)
    finally:
        os.close(fd)
    assert found is not None
    assert (found.outer.id, found.outer.version, found.outer.program) == (outer.id, outer.version, outer.program)
    assert found.outer.descriptors == [3, 4]
    assert found.inner() == inner


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(STATES, JSON)
def test_what_a_later_version_has_added_is_passed_over(supervisor: SupervisorState, added: Any) -> None:
    inner = inner_of(supervisor)
    later = msgspec.json.decode(msgspec.json.encode(inner))
    frozen = later["supervisor"]
    parts = [later, frozen, later["history"], frozen["declaration"], frozen["declaration"]["agent"]]
    for unit in frozen["units"]:
        parts += [unit, unit["service"], unit["state"], unit["tenancy"], unit["plan"]]
        parts += [unit["run"], unit["run"]["log"], unit["run"]["held"]] if unit["run"] else []
    for part in parts:
        part["of_a_later_version"] = added
    outer = msgspec.json.decode(msgspec.json.encode(outer_of(msgspec.json.encode(later))))
    outer["of_a_later_version"] = added
    assert arrived(msgspec.json.encode(outer)).inner() == inner


def test_what_an_earlier_version_did_not_have_has_its_default() -> None:
    earlier = msgspec.json.decode(msgspec.json.encode(inner_of(history=History(newest=7))))
    del earlier["history"]["newest"]
    del earlier["supervisor"]["declaration"]["agent"]["scheduler"]
    assert arrived(msgspec.json.encode(outer_of(msgspec.json.encode(earlier)))).inner() == inner_of()


@pytest.mark.parametrize("form", [-1, 0, FORMAT + 1, 10**6])
def test_another_format_is_refused_with_the_words_that_say_so_and_whom_to_give_it_back_to(form: int) -> None:
    found = arrived(msgspec.json.encode(outer_of(b'{"anything": [1]}', form)))
    assert found.outer.program.argv == ["/srv/lib/agent/9.9.9/agentctl"]
    with pytest.raises(RuntimeFailure, match=f"the state is of format {form}, and this version reads up to {FORMAT}"):
        found.inner()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"since": None}, "Expected `float`, got `null` - at `$.since`"),
        ({"supervisor": {}}, "missing required field `declaration` - at `$.supervisor`"),
        ({"history": {"events": [{}]}}, "missing required field `cursor`"),
        ({"pipes": {"a pipe": "api"}}, "Expected `int`, got `str`"),
    ],
)
def test_a_state_that_makes_no_sense_is_told_in_one_line(change: dict[str, Any], why: str) -> None:
    spoilt = msgspec.json.decode(msgspec.json.encode(inner_of())) | change
    found = arrived(msgspec.json.encode(outer_of(msgspec.json.encode(spoilt))))
    with pytest.raises(RuntimeFailure) as refused:
        found.inner()
    assert str(refused.value).startswith("the state of version 9.9.9 cannot be read: ")
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


WHOLE = msgspec.json.encode(outer_of(msgspec.json.encode(inner_of())))


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=4), st.booleans())
def test_a_damaged_file_is_told_in_one_line_or_is_no_damage(at: int, instead: bytes, cut: bool) -> None:
    damaged = WHOLE[:at] + instead + (b"" if cut else WHOLE[at + len(instead) :])
    with handed(damaged) as environ:
        try:
            found = baton.received(environ)
            assert found is not None
            found.inner()
        except RuntimeFailure as failure:
            assert "\n" not in str(failure)
        assert environ == {"HOME": "/"}


def test_without_one_nothing_was_handed_on() -> None:
    environ = {"HOME": "/", REFUSED: "left over"}
    assert baton.received(environ) is None
    assert environ == {"HOME": "/"}


def test_one_that_came_back_says_why_and_no_child_inherits_it() -> None:
    with handed(WHOLE) as environ:
        environ[REFUSED] = "it cannot"
        found = baton.received(environ)
        assert found is not None
        assert (str(found.fd), found.refused) == (environ.get(VARIABLE, str(found.fd)), "it cannot")
        assert environ == {"HOME": "/"}
        assert not os.get_inheritable(found.fd)
        assert baton.opened(found.fd) == found.outer, "it can be read again: by whom it is given back to"


@pytest.mark.parametrize("number", ["", "-1", "+3", " 3", "3\n", "٣", "0x3", "three", "9" * 10, "9" * 5000])
def test_a_variable_that_names_no_descriptor_is_refused(number: str) -> None:
    environ = {VARIABLE: number}
    with pytest.raises(RuntimeFailure, match="AGENT_HANDOVER names no descriptor"):
        baton.received(environ)
    assert environ == {}


def test_what_anybody_could_have_put_there_is_not_believed(tmp_path: Any) -> None:
    (tmp_path / "baton").write_bytes(WHOLE)
    plain = os.open(tmp_path / "baton", os.O_RDONLY)
    unsealed = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(unsealed, WHOLE)
    ends = os.pipe()
    try:
        for fd in (plain, unsealed, *ends, 0, 999_999_999):
            with pytest.raises(RuntimeFailure, match="what the program before has left cannot be read: "):
                baton.received({VARIABLE: str(fd)})
        assert os.get_inheritable(0), "and what is not ours is as it was"
    finally:
        for fd in (plain, unsealed, *ends):
            os.close(fd)


def test_a_state_that_nobody_would_read_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baton, "LARGEST", len(WHOLE) - 1)
    with pytest.raises(RuntimeFailure, match=f"the state takes {len(WHOLE)} bytes, more than {len(WHOLE) - 1}"):
        baton.seal(outer_of(msgspec.json.encode(inner_of())))
    with pytest.raises(RuntimeFailure, match=f"holds {len(WHOLE)} bytes"):
        arrived(WHOLE)
