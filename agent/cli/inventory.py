"""What captures have written down of the hosts they have seen, for the commands that show it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from agent.cli.stores import Store
from agent.errors import AgentError, StorageFailure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.workers.inventory.snapshot import Snapshot
    from agent.workers.inventory.view import Host


def snapshots(stores: Iterable[Store], left_out: list[AgentError]) -> dict[str, Snapshot]:
    """By the name of the capture. Why one cannot be read goes to ``left_out``."""
    from agent.workers.inventory import snapshot

    found: dict[str, Snapshot] = {}
    for store in stores:
        with store.seen() as directory:
            try:
                read = snapshot.read(directory / snapshot.NAME)
            except StorageFailure as error:
                left_out.append(error)
                continue
        if read is not None:
            found[store.name] = read
    return found


def hosts(found: dict[str, Snapshot]) -> list[Host]:
    """The hosts that they know together."""
    from agent.workers.inventory import view
    from agent.workers.inventory.snapshot import restore

    return view.hosts([view.Source(name, restore(one), one.own) for name, one in found.items()])


def seen_on(host: Host, interfaces: Collection[str]) -> bool:
    """Whether it was seen on one of them, in any VLAN there."""
    return any(interface_of(place) in interfaces or place.partition("/")[2] in interfaces for place in host.seen_by)


def interface_of(place: str) -> str:
    """``eth0`` of ``edge/eth0.7``: seen in VLAN 7 there. The name of an interface may have such an end itself."""
    return re.sub(r"\.[0-9]{1,4}$", "", place.partition("/")[2])
