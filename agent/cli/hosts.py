"""``agentctl hosts``: who is there, as the captures saw it."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.instants import Span, span, spanned
from agent.cli.inventory import hosts as known_by
from agent.cli.inventory import interface_of, seen_on, snapshots
from agent.cli.stores import check_interfaces, find, warn
from agent.cli.which import of_interfaces, of_services
from agent.errors import UsageError
from agent.linux import priority

if TYPE_CHECKING:
    from agent.workers.inventory.snapshot import Snapshot
    from agent.workers.inventory.view import Host

HEADS = ("ADDRESS", "MAC", "NAME", "SERVICES", "FIRST", "LAST", "SEEN BY")

MOST_SERVICES = 6
"""Of one host in the table; ``--json`` has all."""

_SERVICE = re.compile(r"(?:(tcp|udp)/)?([1-9][0-9]{0,4})", re.ASCII)


@command(
    "hosts",
    examples=(
        "agentctl hosts",
        "agentctl hosts --address 10.20.0.0/24 --offers tcp/22",
        "agentctl hosts --name printer --last 1h",
        "agentctl hosts --json | jq -r '.hosts[].addresses[].address'",
    ),
)
@click.option("--address", metavar="WHICH", help="Only hosts with this address, in this network, or with this MAC.")
@click.option("--name", "named", metavar="TEXT", help="Only hosts of which a name contains this.")
@click.option("--offers", metavar="PORT", help="Only hosts that offer this service, such as tcp/22, or 22 for either.")
@of_services
@of_interfaces
@spanned
def hosts(
    session: Session,
    address: str | None,
    named: str | None,
    offers: str | None,
    services: tuple[str, ...],
    interfaces: tuple[str, ...],
    last: str | None,
    begin: str | None,
    end: str | None,
) -> None:
    """Show the hosts that captures have seen: their addresses, MACs, names, services, and when.

    With a time only those that were seen in it, as far as their first and last sight tell. This reads what the captures
    have written below PREFIX/spool; no agent need run. An address (+N) has N others beside it; --json shows them.
    """
    within = span(time.time_ns(), last, begin, end)
    wanted = Wanted(address, named, offers, interfaces, within)
    priority.be_idle()
    paths = session.paths()
    stores = find(paths, services)
    left_out = list(stores.left_out)
    known = snapshots(stores.stores, left_out)
    if left_out and not known:
        raise left_out[0]
    warn([str(error) for error in left_out])
    every = known_by(known)
    check_interfaces(stores.stores, interfaces, (interface_of(place) for host in every for place in host.seen_by))
    found = [host for host in every if wanted.matches(host)]
    if session.json:
        each = [
            {"service": name, "written": snapshot.written / 1e9, "counters": snapshot.counters}
            for name, snapshot in known.items()
        ]
        unreadable = [str(error) for error in left_out]
        output.document({"services": each, "hosts": [_record(host) for host in found], "unreadable": unreadable})
        return
    if not found:
        print("no such host was seen" if known and wanted.any else f"no hosts are known below {paths.spool}")
    else:
        table.show(HEADS, [_row(host) for host in found])
    for line in (*_moves(found), *_losses(known)):
        print(text.safe(line))


class Wanted:
    """Which hosts are asked for. Raises ``UsageError`` for what cannot be meant."""

    def __init__(
        self,
        address: str | None,
        named: str | None,
        offers: str | None,
        interfaces: tuple[str, ...],
        within: Span | None,
    ) -> None:
        self.any = any((address, named, offers, interfaces, within))
        self._mac, self._network = _place(address)
        self._named = named.lower() if named else None
        self._offers = _services(offers)
        self._interfaces = interfaces
        self._within = within

    def matches(self, host: Host) -> bool:
        """Whether it is one of them."""
        facts = host.facts
        return (
            (self._within is None or (host.last >= self._within.begin and host.first <= self._within.end))
            and (self._mac is None or host.mac == self._mac)
            and (self._network is None or any(_within(holding.address, self._network) for holding in host.addresses))
            and (self._named is None or any(self._named in told.value.lower() for told in facts.get("name", ())))
            and (self._offers is None or any(told.value in self._offers for told in facts.get("service", ())))
            and (not self._interfaces or seen_on(host, self._interfaces))
        )


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _place(address: str | None) -> tuple[str | None, Network | None]:
    if address is None:
        return None, None
    from agent.workers.inventory.sighting import station

    if re.fullmatch(r"[0-9a-fA-F]{1,2}([:-][0-9a-fA-F]{1,2}){5}", address, re.ASCII):
        return station("".join(part.zfill(2) for part in re.split("[:-]", address))) or address.lower(), None
    try:
        return None, ipaddress.ip_network(address, strict=False)
    except ValueError:
        raise UsageError(
            f"--address {text.safe(address)}: not an address, network or MAC; write 10.20.0.5, 10.20.0.0/24, fd00::1 "
            "or 52:54:00:12:34:56"
        ) from None


def _within(address: str, network: Network) -> bool:
    return ipaddress.ip_address(address) in network


def _services(offers: str | None) -> set[str] | None:
    if offers is None:
        return None
    match = _SERVICE.fullmatch(offers)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"--offers {text.safe(offers)}: not a service; write tcp/22, udp/53 or 22")
    return {f"{protocol}/{match[2]}" for protocol in ([match[1]] if match[1] else ["tcp", "udp"])}


def _row(host: Host) -> tuple[str, ...]:
    shown = host.addresses[0].address if host.addresses else text.ABSENT
    if len(host.addresses) > 1:
        shown += f" (+{len(host.addresses) - 1})"
    services = list(dict.fromkeys(told.value for told in host.facts.get("service", ())))
    listed = " ".join(services[:MOST_SERVICES])
    if len(services) > MOST_SERVICES:
        listed += f" +{len(services) - MOST_SERVICES}"
    roles = ["this host"] if host.own else []
    roles += dict.fromkeys(told.value for told in host.facts.get("role", ()))
    name = host.name + (f" ({', '.join(roles)})" if roles else "")
    return (
        *(shown, host.mac or text.ABSENT, name.strip() or text.ABSENT, listed or text.ABSENT),
        *(text.instant(host.first), text.instant(host.last), ", ".join(host.seen_by)),
    )


def _moves(found: Sequence[Host]) -> list[str]:
    return [
        f"{holding.address} answered from {former.mac} until {text.instant(former.last)}, since then from {host.mac}"
        for host in found
        for holding in host.addresses
        for former in holding.former
    ]


def _losses(known: dict[str, Snapshot]) -> list[str]:
    """What the captures could not look into or keep."""
    lines = []
    for name, snapshot in known.items():
        counts = snapshot.counters
        parts = [
            f"{counts[counter]:,} {words}"
            for counter, words in (
                ("crashed", "packets could not be dissected (aside.pcap in its spool)"),
                ("evicted", "hosts made room for others"),
            )
            if counts.get(counter)
        ]
        if parts:
            lines.append(f"{name}: {', '.join(parts)}")
    return lines


def _record(host: Host) -> dict[str, Any]:
    from agent.workers.inventory.sighting import locally_administered

    return {
        "mac": host.mac or None,
        "local_mac": locally_administered(host.mac) if host.mac else None,
        "name": host.name or None,
        "this_host": host.own,
        "first": host.first / 1e9,
        "last": host.last / 1e9,
        "seen_by": host.seen_by,
        "addresses": [
            {
                "address": holding.address,
                "first": holding.first / 1e9,
                "last": holding.last / 1e9,
                "former": [
                    {"mac": former.mac, "first": former.first / 1e9, "last": former.last / 1e9}
                    for former in holding.former
                ],
            }
            for holding in host.addresses
        ],
        "facts": {
            kind: [
                {
                    "value": told.value,
                    "source": told.source,
                    "asker": told.asker or None,
                    "first": told.first / 1e9,
                    "last": told.last / 1e9,
                }
                for told in facts
            ]
            for kind, facts in host.facts.items()
        },
    }
