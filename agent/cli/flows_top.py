"""``agentctl flows top``: what was most, by host, pair, port, protocol or flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.cli import limited as limited_by
from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.flow_source import Choice, chosen
from agent.cli.limited import deadline, limited
from agent.cli.stores import nothing, warn
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.workers.flows.records import Effort
    from agent.workers.flows.top import By, Sort, Totals

BY = ("host", "pair", "port", "proto", "flow")
SORT = ("bytes", "packets", "flows")

HEADS: dict[str, tuple[str, ...]] = {
    "host": ("HOST", "BYTES", "PACKETS", "OUT", "IN", "FLOWS", "PEERS"),
    "pair": ("A", "B", "BYTES", "PACKETS", "A TO B", "B TO A", "FLOWS"),
    "port": ("PORT", "BYTES", "PACKETS", "FROM SERVICE", "TO SERVICE", "FLOWS", "SERVERS", "CLIENTS"),
    "proto": ("PROTOCOL", "OVER", "BYTES", "PACKETS", "FLOWS", "SHARE"),
    "flow": ("SOURCE", "DESTINATION", "PROTOCOL", "BYTES", "PACKETS", "FLAGS", "INTERFACE", "LASTED", "SINCE"),
}
_LEFT = {"HOST", "A", "B", "PORT", "PROTOCOL", "OVER", "SOURCE", "DESTINATION", "FLAGS", "INTERFACE", "SINCE"}


@command(
    "top",
    short_help="Show what was most.",
    examples=(
        "agentctl flows",
        "agentctl flows 'net 10.0.0.0/8 and tcp' --by port --last 1d",
        "agentctl flows --by flow --top 5 --from 14:00 --to 14:05",
        "agentctl flows --by host --json | jq '.top[].host'",
    ),
)
@click.option("--by", type=click.Choice(BY), default="host", show_default=True, help="Add up by this.")
@click.option("--sort", type=click.Choice(SORT), default="bytes", show_default=True, help="What comes first.")
@click.option(
    "--top", "number", type=click.IntRange(1, 100_000), default=20, show_default=True, metavar="N", help="So many rows."
)
@limited()
@chosen
def top(session: Session, choice: Choice, by: By, sort: Sort, number: int, time_limit: str) -> None:
    """Show who sent and received most, of the last hour unless another time is given.

    EXPR is in the words of pcap-filter(7): only packets that match it count. BYTES are on the wire, link headers
    included. A flow has one direction; a host's flows are those in both. Which of two ports is the service's is told
    by who answered the handshake, else it is the lower one.
    """
    if by == "flow" and sort == "flows":
        raise UsageError("--by flow has one flow in each row; write --sort bytes or --sort packets")
    from agent.workers.flows.records import Effort, Origins
    from agent.workers.flows.top import Totals

    origins, effort, totals = Origins(), Effort(deadline=deadline(time_limit)), Totals(by)
    paths = session.paths()
    stores = choice.stores(paths)
    effort.unreadable += stores.notes
    for batch in choice.batches(stores.stores, origins, effort):
        totals.add(batch.rows)
    warn(effort.unreadable)
    limited_by.warn(effort.stopped)
    rows = _rows(totals, number, sort, origins.names)
    if session.json:
        output.document(_document(choice, totals, rows, effort, sort))
        return
    if not totals.packets:
        print(f"no such packets are stored from {choice.told()}" if stores.stores else nothing(paths))
        return
    heads = HEADS[by]
    table.show(heads, [_cells(by, row, totals) for row in rows], right=[head for head in heads if head not in _LEFT])
    amounts = (text.count(_flows(totals), "flow"), text.count(totals.packets, "packet"), text.size(totals.octets))
    print(f"{choice.told()}: {', '.join(amounts)}")
    if totals.evicted:
        left = f", and {text.size(totals.left_out)} are in no row" if totals.left_out else ""
        print(f"more flows than fit into memory: flows, peers, servers and clients are estimates{left}")


def _rows(totals: Totals, number: int, sort: Sort, names: list[tuple[str, str]]) -> list[dict[str, Any]]:
    import msgspec

    from agent.workers.flows import lines
    from agent.workers.flows import top as tops

    flows = totals.flows()
    if totals.by != "flow":
        return tops.described(totals.by, tops.most(totals.groups(), number, sort), flows)
    return [msgspec.structs.asdict(line) for line in lines.lines(tops.largest(flows, number, sort), names)]


def _document(choice: Choice, totals: Totals, rows: list[dict[str, Any]], effort: Effort, sort: str) -> dict[str, Any]:
    return {
        "from": choice.within.begin / 1e9,
        "to": choice.within.end / 1e9,
        "expression": choice.expression,
        "by": totals.by,
        "sort": sort,
        "flows": _flows(totals),
        "packets": totals.packets,
        "bytes": totals.octets,
        "top": rows,
        "evicted_flows": totals.evicted,
        "left_out_bytes": totals.left_out,
        "unindexed_bytes": effort.unindexed,
        "unreadable": effort.unreadable,
        **limited_by.document(effort.stopped),
    }


def _flows(totals: Totals) -> int:
    return len(totals.flows()) + totals.evicted


def _cells(by: str, row: dict[str, Any], totals: Totals) -> tuple[str, ...]:
    size, packets = text.size(row["bytes"]), str(row["packets"])
    match by:
        case "host":
            ways = (text.size(row["bytes_out"]), text.size(row["bytes_in"]))
            return (row["host"], size, packets, *ways, str(row["flows"]), str(row["peers"]))
        case "pair":
            ways = (text.size(row["bytes_ab"]), text.size(row["bytes_ba"]))
            return (row["a"], row["b"], size, packets, *ways, str(row["flows"]))
        case "port":
            ways = (text.size(row["bytes_out"]), text.size(row["bytes_in"]))
            counts = (str(row["flows"]), str(row["servers"]), str(row["clients"]))
            return (f"{row['protocol']}/{row['port']}", size, packets, *ways, *counts)
        case "proto":
            over = row["family"] if row["family"] in ("ipv4", "ipv6") else text.ABSENT
            share = text.percent(100 * row["bytes"] / max(totals.octets, 1))
            return (row["protocol"], over, size, packets, str(row["flows"]), share)
        case _:
            return (
                end_of(row["source"], row["source_port"]),
                end_of(row["destination"], row["destination_port"]),
                protocol_of(row),
                size,
                packets,
                text.optional(row["tcp_flags"]),
                row["interface"],
                text.duration((row["end_ns"] - row["start_ns"]) / 1e9),
                text.instant(row["start_ns"]),
            )


def end_of(address: str | None, port: int | None) -> str:
    """One end of a flow as a person writes it."""
    if address is None:
        return text.ABSENT
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def protocol_of(row: dict[str, Any]) -> str:
    """What a row of ``lines`` is, in short."""
    name = str(row["protocol"])
    if row["icmp_type"] is not None:
        name += f" {row['icmp_type']}.{row['icmp_code']}"
    if row["fragments"]:
        name += " fragments"
    return name + (" ?" if row["odd"] else "")
