"""What stands in the way of an installation: each in one line, and all of them before anything is touched. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.installation.entry import Directory, Entry, Found, Strange, describe, name, parent, same, within
from agent.installation.goal import Goal
from agent.installation.plan import Seen, mine_of, wanted
from agent.installation.record import named, order
from agent.linux.systemd import UNITS


def older(goal: Goal, seen: Seen) -> str | None:
    """The installed version, where the goal is an older one: going back is done on purpose or not at all.

    An old file that lies around, or a second configuration that names another version, would otherwise take a host back
    without a word; and what the newer version wrote, the older one may not read.
    """
    installed = seen.record.version if seen.record else ""
    return installed if installed and order(goal.version) < order(installed) else None


def objections(
    goal: Goal, seen: Seen, *, foreign_units: Mapping[str, str | None], shipped: tuple[str, ...], force: bool
) -> list[str]:
    """Everything that must not be overwritten, or would get in each other's way.

    ``foreign_units`` tells of units that are there to which prefix they belong, ``shipped`` are units of a package.
    With ``force`` what was laid by us and changed since is no objection.
    """
    found = [
        f"{path} is there: the package agent is installed; apt remove agent first, or stay with it" for path in shipped
    ]
    others = sorted({prefix for prefix in foreign_units.values() if prefix and prefix != goal.prefix})
    found += [
        f"an agent is installed below {prefix}, and there is one to a host: take that one back first: "
        f"agentctl --prefix {prefix} uninstall"
        for prefix in others
    ]
    found += [f"{path} is no directory, and one is needed there: move it away" for path in seen.obstructed]
    found += [
        f"{path} is there with things in it that are not the agent's, and would be given to it: move it away, "
        "or choose another --prefix"
        for path in seen.strangers
    ]
    laid = named(seen.record)
    mine = {entry.path for entry in mine_of(goal, seen)}
    for entry in wanted(goal, seen):
        stands = seen.entries.get(entry.path)
        if stands is None or (isinstance(entry, Directory) and isinstance(stands, Directory) and entry.path in mine):
            continue
        if others and not within(entry.path, goal.prefix):
            continue  # it goes with the other one
        objection = _objection(entry, stands, laid.get(entry.path, ()), goal, seen, force=force)
        found += [objection] if objection else []
    return found


def _objection(
    entry: Entry, stands: Found, laid: tuple[Entry, ...], goal: Goal, seen: Seen, *, force: bool
) -> str | None:
    if isinstance(entry, Directory):
        if not isinstance(stands, Directory):
            return f"{entry.path} is {describe(stands)}, and a directory is needed there: move it away"
        if entry.path == goal.place and seen.children.get(entry.path):
            return f"{entry.path} is there and was not laid by agentctl: move it away"
        return None
    if same(entry, stands):
        return None
    if not laid or isinstance(stands, Directory | Strange):
        return f"{entry.path} is {describe(stands)} that was not laid by agentctl: move it away"
    if within(entry.path, goal.place):
        if entry.path == goal.manifest and goal.version in seen.in_use:
            return (
                f"another build of {goal.version} is running from {goal.place}, and its files cannot be exchanged "
                "under it: stop the agent first"
            )
        return None
    if force or any(same(one, stands) for one in laid):
        return None
    return (
        f"{entry.path} was changed since it was installed: keep the changes in {_instead(entry.path)}, "
        "and let --force replace it"
    )


def _instead(path: str) -> str:
    """Where an operator's own changes belong."""
    unit = name(path)
    return f"a drop-in (systemctl edit {unit})" if parent(path) == UNITS else "another file"
