"""The page of benchmarks, in which each bench writes its own section and leaves the others as they are."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"

HEAD = "# Benchmarks\n"
_MARK = re.compile(r"^<!-- make ([a-z-]+) -->\n", re.MULTILINE)
"""What a section begins with: the command that writes it. It goes on to the next such line."""


def write(section: str, title: str, measured: str, method: str) -> None:
    """Put what ``make SECTION`` has measured in its place, dated, with how that was done."""
    text = f"## {title}\n\nMeasured on {machine()}.\n\n{measured}\n\n### How: {title.lower()}\n\n{method}"
    PAGE.write_text(replaced(PAGE.read_text() if PAGE.exists() else HEAD, section, text))


def replaced(page: str, section: str, text: str) -> str:
    """``page`` with ``text`` as that section, which is the last if there was none. The others stay as they are."""
    head, *parts = _MARK.split(page)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    sections[section] = text
    marked = (f"<!-- make {name} -->\n{body.strip()}\n" for name, body in sections.items())
    return "\n".join([f"{head.strip()}\n", *marked])


def machine() -> str:
    """This machine in one line."""
    processor = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return (
        f"{os.cpu_count()} × {processor[1] if processor else platform.machine()}, {system}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
