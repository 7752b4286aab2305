"""Tables: drawn by rich on a terminal, plain aligned columns in a pipe.

rich costs about 50 ms to import, so it is imported here, only when a terminal is there to be drawn on. It respects
``NO_COLOR`` and ``TERM=dumb`` by itself. Cells are handed to it as ``Text``, never as markup: a log line holding
``[red]`` is a log line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.cli.text import safe

#: Words that stand for a state, and how a terminal shows them.
STYLES = {
    "running": "green",
    "completed": "green",
    "ok": "green",
    "healthy": "green",
    "waiting": "cyan",
    "starting": "yellow",
    "stopping": "yellow",
    "reloading": "yellow",
    "backoff": "yellow",
    "degraded": "yellow",
    "warn": "yellow",
    "failed": "bold red",
    "fail": "bold red",
    "unhealthy": "bold red",
    "stopped": "dim",
}

Rows = Sequence[Sequence[str]]


def show(heads: Sequence[str], rows: Rows, *, right: Sequence[str] = ()) -> None:
    """Print a table on stdout; columns named in ``right`` hold numbers. The last column takes what width is left."""
    cleaned = [[safe(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(heads, cleaned, right)
    else:
        for line in plain(heads, cleaned, right=right):
            print(line)


def plain(heads: Sequence[str], rows: Rows, *, right: Sequence[str] = ()) -> list[str]:
    """The lines of a table with columns two spaces apart, without trailing blanks."""
    table = [list(heads), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def show_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values below each other on stdout."""
    width = max(len(name) for name, _ in pairs)
    if sys.stdout.isatty():
        _draw_pairs(pairs)
    else:
        for name, value in pairs:
            print(f"{name.rjust(width)}: {safe(value)}")


def _draw(heads: Sequence[str], rows: Rows, right: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), header_style="bold")
    for head in heads:
        last = head == heads[-1]
        table.add_column(
            head,
            justify="right" if head in right else "left",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


def _draw_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name, "bold"), Text(safe(value), STYLES.get(value, "")))
    Console(highlight=False).print(table)
