"""What holds across the keys of a scan, and what its targets come to together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from agent.declaration import targets
from agent.declaration.locate import Path
from agent.declaration.model import History, Scan, Scanning
from agent.declaration.ports import parse_ports
from agent.declaration.reader import Fail, Values
from agent.declaration.sources import Unreadable
from agent.declaration.target_file import Line, parse_target_file
from agent.declaration.wording import printable, shown
from agent.errors import UsageError

TargetFile = Callable[[FilePath], str]
"""The text of a file of targets. Raises ``Unreadable``."""

_TOO_MANY = f"one scan takes at most {targets.MOST_ADDRESSES}"


def ports_of(text: str, path: Path, sets: Mapping[str, str], fail: Fail, *, top: bool) -> str:
    """Ports in normal form. ``top``: whether top-N may stand in them, which only a scan can look up."""
    try:
        found = parse_ports(text, sets)
        if not top and not found.settled:
            raise UsageError(f"{shown(text)} holds top-N, which means something to the ports of a scan alone")
    except UsageError as error:
        fail(path, str(error), 'is not ports such as "1-1024,5432,udp/53"')
        return ""
    return str(found)


def scan_settings(values: Values, server: str, scanning: Scanning) -> dict[str, Any]:
    """The settings of a scan that are not as they were read."""
    return {
        "history": History(**values.part("history")),
        "site": values.good.get("site", server),
        "budget": scanning,
    }


def check_scan(values: Values, target_file: TargetFile, fail: Fail) -> None:
    """Note what is wrong with a scan as a whole. Files of targets are read, and names count as one address each."""
    _check_profile(values, fail)
    allowed = None
    if not values.unclear("allow_public"):
        allowed = targets.permitted(values.good.get("allow_public", ()))
    wanted = _written(values, "targets", target_file, fail)
    excluded = _written(values, "exclude", target_file, fail)
    left_out = targets.left_out(wanted.texts)
    for path, place, text in wanted.addresses:
        if objection := _objection(text, allowed, left_out):
            otherwise = "is public, must never be scanned or needs its interface"
            fail(path, f"{place}{text} {objection}", otherwise, (path, ("targets",)) if text in left_out else ())
            if place:  # one line for each file
                break
    _check_whole(wanted, excluded, fail)


def never_scanned(scan: Scan, target_file: TargetFile) -> dict[str, str]:
    """The addresses among the targets of a scan that it leaves out by itself, each with what it is.

    What names stand for is not known here, nor what a file holds that cannot be read.
    """
    found: list[str] = []
    for text in scan.targets:
        if (file := targets.file_of(text)) is None:
            found.append(text)
            continue
        with suppress(Unreadable):
            found += [line.text for line in parse_target_file(target_file(FilePath(file)))[0]]
    return targets.left_out(text for text in found if not targets.is_name(text))


class _Written(NamedTuple):
    """What one list of targets holds, with that of its files.

    ``addresses`` have the key that they are from, and where in a file. ``names`` is how many names there are, and
    ``whole`` whether all that stands there could be read.
    """

    addresses: list[tuple[Path, str, str]]
    names: int
    whole: bool

    @property
    def texts(self) -> list[str]:
        return [text for _, _, text in self.addresses]


def _written(values: Values, key: str, target_file: TargetFile, fail: Fail) -> _Written:
    found: list[tuple[Path, str, str]] = []
    whole = not values.unclear(key)
    for position, text in values.items(key):
        path = (key, position)
        if (file := targets.file_of(text)) is None:
            found.append((path, "", text))
        else:
            lines = _lines(file, path, target_file, fail)
            whole = whole and lines is not None
            found += [(path, f"{printable(file)}:{number}: ", item) for number, item in lines or ()]
    addresses = [one for one in found if not targets.is_name(one[2])]
    return _Written(addresses, len(found) - len(addresses), whole)


def _check_whole(wanted: _Written, excluded: _Written, fail: Fail) -> None:
    """How many addresses there are, with and without those that are excluded."""
    number = targets.count(wanted.texts) + wanted.names
    if number > targets.MOST_ADDRESSES:
        fail(("targets",), f"{number} addresses are too many; {_TOO_MANY}", f"makes too many addresses; {_TOO_MANY}")
    known = wanted.whole and excluded.whole and not wanted.names and wanted.addresses and excluded.addresses
    if known and targets.all_excluded(wanted.texts, excluded.texts):
        fail(("exclude",), "leaves nothing to scan")


def _check_profile(values: Values, fail: Fail) -> None:
    profile = values.good.get("profile", "ports")
    if values.unclear("profile"):
        return
    if profile == "discovery":
        for key in ("ports", "retries", "engine"):
            if values.written(key):
                what = "looks at no ports; leave them out" if key == "ports" else f"has no {key}; leave it out"
                fail((key,), f'the profile discovery {what} or write profile = "ports"')
    if values.written("scripts") and profile != "full":
        fail(("scripts",), f'the profile {profile} runs no scripts; leave them out or write profile = "full"')
    if values.written("silent_again") and profile in ("discovery", "ports"):
        fail(("silent_again",), f'the profile {profile} asks no port what it is; write profile = "services"')


def _objection(text: str, allowed: list[targets.Span] | None, left_out: Mapping[str, str]) -> str | None:
    """``left_out`` are the addresses of other targets that are."""
    if (what := left_out.get(text)) is not None:
        return f"is {what}, which is never scanned; leave it out"
    return targets.objection(text, allowed) or targets.without_interface(text)


def _lines(file: str, path: Path, target_file: TargetFile, fail: Fail) -> list[Line] | None:
    """The targets of a file; ``None`` when it cannot be used, and that has been noted."""
    try:
        found, wrong = parse_target_file(target_file(FilePath(file)))
    except Unreadable as error:
        fail(path, f"{printable(file)} {error}", "is not a file of targets that can be read")
        return None
    for number, message in wrong:
        fail(path, f"{printable(file)}:{number}: {message}", "is a file of targets with mistakes in it")
    if not found and not wrong:
        fail(path, f"{printable(file)} names no target", "is a file that names no target")
    return found if found and not wrong else None
