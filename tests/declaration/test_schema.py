"""The schema and the model are two views of the same keys."""

from __future__ import annotations

import msgspec
import pytest

from agent.declaration.model import (
    AgentSettings,
    AnyService,
    Capture,
    Command,
    Expect,
    Heartbeat,
    History,
    Limits,
    LogPolicy,
    Notify,
    Rotate,
    Scan,
    Scanning,
    Timer,
)
from agent.declaration.schema import AGENT, EXPECT, KINDS, NOTIFY, OF_KIND, SCANNING, SHARED, Kind, Spec
from agent.declaration.timing import OF_TIMES, TIMER_KEYS

MODEL: dict[Kind, type[AnyService]] = {"capture": Capture, "scan": Scan, "command": Command}


OF_ALL_SCANS = {"scan": {"budget"}}
"""What a service has from a table of its own."""


def names(struct: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_that_may_be_written_has_a_place_in_the_model(kind: Kind) -> None:
    written = (SHARED.keys() | OF_KIND[kind].keys()) - {*TIMER_KEYS} - {*OF_TIMES} - {"kind", "env_file", "timeout"}
    assert written == names(MODEL[kind]) - {"name", "project", "timer", "timeout"} - OF_ALL_SCANS.get(kind, set())
    assert {*OF_TIMES, "timeout", "every"} == names(Timer) - {"source", "calendar"}


def test_tables_have_the_keys_of_the_model() -> None:
    assert AGENT.keys() - {"heartbeat"} == names(AgentSettings) - {"heartbeat_interval"}
    assert AGENT["heartbeat"].fields.keys() == {"interval"}
    for spec, struct in (
        (SHARED["log"], LogPolicy),
        (SHARED["heartbeat"], Heartbeat),
        (SHARED["limits"], Limits),
        (OF_KIND["capture"]["rotate"], Rotate),
        (OF_KIND["scan"]["history"], History),
    ):
        assert spec.fields.keys() == names(struct)
    assert SCANNING.keys() == names(Scanning)
    assert EXPECT.keys() == names(Expect) - {"name", "project"}
    assert NOTIFY.keys() == names(Notify) - {"name"}


def all_specs(fields: dict[str, Spec]) -> list[Spec]:
    found = list(fields.values())
    for spec in list(found):
        inner = {str(number): one for number, one in enumerate((spec.item, spec.first, spec.table)) if one}
        found += all_specs({**spec.fields, **inner})
    return found


def test_every_key_has_words_for_what_it_expects() -> None:
    tables = (AGENT, SHARED, SCANNING, EXPECT, NOTIFY, *OF_KIND.values())
    specs = [spec for table in tables for spec in all_specs(table)]
    assert len(specs) > 100
    assert all(spec.expected and spec.expected.isprintable() for spec in specs)


def test_no_key_belongs_to_two_kinds() -> None:
    every = [key for fields in (SHARED, *OF_KIND.values()) for key in fields]
    assert len(every) == len(set(every))
