"""What has to happen so that the running services become the declared ones. Pure.

``LIVE`` is the whole table of keys that take effect without a new worker; any other difference means a restart, and the
plan names the keys that caused it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from agent.declaration.model import AnyService

LIVE = frozenset(
    {
        "enabled",
        "listens",
        "log",
        "max_restarts",
        "project",
        "restart",
        "restart_window",
        "start_timeout",
        "stop_signal",
        "stop_timeout",
        "timer",
    }
)

Verb = Literal["start", "stop", "restart", "update", "keep"]


class Action(msgspec.Struct, frozen=True):
    """What to do with one service, and the keys that differ."""

    name: str
    verb: Verb
    because: tuple[str, ...] = ()


def plan(desired: Mapping[str, AnyService], running: Mapping[str, AnyService]) -> list[Action]:
    """The actions, by service name. ``stop`` is for services that are no longer declared.

    A service that changed its kind is restarted. Enabling and disabling starts and stops a service that is otherwise
    updated in place.
    """
    actions = []
    for name in sorted(desired.keys() | running.keys()):
        new, old = desired.get(name), running.get(name)
        if new is None:
            actions.append(Action(name, "stop"))
        elif old is None:
            actions.append(Action(name, "start"))
        else:
            actions.append(_compare(name, old, new))
    return actions


def _compare(name: str, old: AnyService, new: AnyService) -> Action:
    changed = differences(old, new)
    if not changed:
        return Action(name, "keep")
    if set(changed) <= LIVE and (old.timer is None) == (new.timer is None):
        return Action(name, "update", changed)
    return Action(name, "restart", changed)


def differences(old: AnyService, new: AnyService) -> tuple[str, ...]:
    """The names of the keys in which two services of one name differ, sorted; ``kind`` when the kind does."""
    if type(old) is not type(new):
        return ("kind",)
    names = (field.name for field in msgspec.structs.fields(old))
    return tuple(sorted(name for name in names if getattr(old, name) != getattr(new, name)))
