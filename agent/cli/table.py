"""Tables: drawn by rich on a terminal, plain aligned columns in a pipe.

rich costs about 50 ms to import, so it is imported here, only when a terminal is there to be drawn on. It respects
``NO_COLOR`` and ``TERM=dumb`` by itself. Cells are handed to it as ``Text``, never as markup: a log line holding
``[red]`` is a log line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.cli.text import safe

if TYPE_CHECKING:
    from rich.console import Console

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
    "unchecked": "yellow",
    "unhealthy": "bold red",
    "stopped": "dim",
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}

GAP = 2
"""Blanks between two columns."""

LEAST_LAST = 30
"""A last column that is cut to less than this many characters on a terminal stands below its row instead."""

Rows = Sequence[Sequence[str]]


def show(heads: Sequence[str], rows: Rows, *, right: Sequence[str] = ()) -> None:
    """Print a table on stdout; columns named in ``right`` hold numbers. The last column is for prose.

    On a terminal the last column is folded, or, where that leaves too little room for it, put below each row.
    """
    cleaned = [[safe(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(heads, cleaned, right)
    else:
        for line in plain(heads, cleaned, right=right):
            print(line)


def plain(heads: Sequence[str], rows: Rows, *, right: Sequence[str] = ()) -> list[str]:
    """The lines of a table, without trailing blanks."""
    return [(" " * GAP).join(cells).rstrip() for cells in _aligned(heads, rows, right)]


def _aligned(heads: Sequence[str], rows: Rows, right: Sequence[str]) -> list[list[str]]:
    """The heads and the rows, every cell as wide as its column."""
    table = [heads, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    return [
        [
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        ]
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
    from rich.console import Console

    console = Console(highlight=False)
    *others, last = (len(cell) for cell in _aligned(heads, rows, right)[0])
    if sum(others) + GAP * len(others) + min(last, LEAST_LAST) <= console.width:
        _draw_table(console, heads, rows, right)
    else:
        _draw_stacked(console, heads, rows, right)


def _draw_table(console: Console, heads: Sequence[str], rows: Rows, right: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", no_wrap=head != heads[-1], overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    console.print(table)


def _draw_stacked(console: Console, heads: Sequence[str], rows: Rows, right: Sequence[str]) -> None:
    """Each row with its prose, indented, below it. A row that is too wide even so is wrapped by the terminal."""
    from rich.padding import Padding
    from rich.text import Text

    head_line, *lines = _aligned(heads[:-1], [row[:-1] for row in rows], right)
    console.print(Text((" " * GAP).join(head_line), "bold"), soft_wrap=True)
    for cells, row in zip(lines, rows, strict=True):
        styled = (Text(cell, STYLES.get(cell.strip(), "")) for cell in cells)
        console.print(Text(" " * GAP).join(styled), soft_wrap=True)
        if row[-1]:
            console.print(Padding(Text(row[-1], "dim"), (0, 0, 0, GAP * 2)))


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
