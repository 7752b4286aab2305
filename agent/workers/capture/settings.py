"""A capture service's declared settings, checked and turned into what the engine works with. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.declaration.capture_limits import (
    ENDLESS,
    LARGEST_SNAPLEN,
    LONGEST_FILTER,
    MOST_INTERFACES,
    MOST_PROCESSES,
    RING,
    endless,
    is_interface_pattern,
    least_budget,
    record_limit,
)
from agent.declaration.model import Capture, Rotate
from agent.errors import ConfigurationError
from agent.workers.capture import rotation
from agent.workers.capture.handle import Options
from agent.workers.capture.naming import valid_interface
from agent.workers.capture.retention import Limits
from agent.workers.capture.selection import named, open_ended
from agent.workers.capture.writer import Cut

#: Shortest and longest rotation, in seconds. A segment holds what the kernel hands over at least once.
EVERY = (0.1, 366 * 86_400.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """What each interface needs to know, and how many of them there may be at once."""

    options: Options
    limits: Limits
    most: int
    rotate: Rotate
    record: int
    processes: int

    def cut(self, interfaces: int) -> Cut:
        """How the segments of that many interfaces are cut, 1 or more: what is open takes at most half the budget."""
        budget, interfaces = self.limits.budget, interfaces * self.processes
        limit = rotation.segment_limit(self.rotate.size, budget, interfaces)
        return Cut(
            limit=limit,
            every=round(self.rotate.every * 1e9),
            record=self.record,
            headroom=rotation.headroom(limit, self.record),
            most=max(limit, min(limit + 2 * self.options.ring, budget // (2 * interfaces))),
        )


def settings(service: Capture) -> Settings:
    """Raises ``ConfigurationError`` for the first setting that cannot work."""
    names = [name for name in service.interfaces if not name.startswith("!")]
    if not names:
        raise _wrong(service, "interfaces", "none is named; name at least one, such as eth0")
    for name in names:
        if not is_interface_pattern(name) and not valid_interface(name):
            raise _wrong(service, "interfaces", f"{name!r} cannot be the name of an interface")
        if names.count(name) > 1:
            raise _wrong(service, "interfaces", f"{name} is named twice")
    if not named(service.interfaces) and not open_ended(service.interfaces):
        raise _wrong(service, "interfaces", "what is named is left out again")
    if (length := len(service.filter)) > LONGEST_FILTER:
        raise _wrong(service, "filter", f"{length} characters are too many; at most {LONGEST_FILTER} are compiled")
    if endless(service.filter):
        raise _wrong(service, "filter", ENDLESS)
    if "\0" in service.filter:
        raise _wrong(service, "filter", "a NUL character would cut it short")
    if not 1 <= service.snaplen <= LARGEST_SNAPLEN:
        raise _wrong(service, "snaplen", f"{service.snaplen} is not within 1..{LARGEST_SNAPLEN} bytes")
    if not RING[0] <= service.ring <= RING[1]:
        raise _wrong(service, "ring", f"{service.ring} is not within {RING[0]}..{RING[1]} bytes")
    if not EVERY[0] <= service.rotate.every <= EVERY[1]:
        raise _wrong(service, "rotate.every", f"{service.rotate.every} s is not within {EVERY[0]} s..366 days")
    if not (0 <= service.min_free.share < 1 and service.min_free.bytes >= 0):
        raise _wrong(service, "min_free", f"{service.min_free} is nothing that can stay free of a file system")
    if service.max_age is not None and not 0 < service.max_age < float("inf"):
        raise _wrong(service, "max_age", f"{service.max_age} s is no age")
    if service.rotate.size < 1:
        raise _wrong(service, "rotate.size", f"{service.rotate.size} is no size")
    record = record_limit(service.snaplen)
    if not 1 <= service.fanout <= MOST_PROCESSES:
        raise _wrong(service, "fanout", f"{service.fanout} is not within 1..{MOST_PROCESSES} processes")
    if service.fanout > 1 and service.trigger is not None:
        raise _wrong(service, "fanout", "an armed capture is one process; leave out fanout or trigger")
    least = least_budget(record, len(names) * service.fanout)
    if service.budget < least:
        raise _wrong(
            service,
            "budget",
            f"{service.budget} bytes are too few for {len(names)} interfaces with packets of up to {service.snaplen} "
            f"bytes; at least {least} would do",
        )
    return Settings(
        Options(service.snaplen, service.promiscuous, service.ring, service.filter),
        Limits(
            service.budget,
            service.min_free.bytes,
            service.min_free.share,
            None if service.max_age is None else round(service.max_age * 1e9),
        ),
        max(len(names), min(MOST_INTERFACES, service.budget // least_budget(record, service.fanout))),
        service.rotate,
        record,
        service.fanout,
    )


def _wrong(service: Capture, key: str, text: str) -> ConfigurationError:
    return ConfigurationError(f"service.{service.name}.{key}: {text}")
