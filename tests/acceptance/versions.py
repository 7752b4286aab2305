"""Versions of the agent that follow each other: copies of the package, reached by a link as an installation is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tests.harness import SOURCE, Agent, wait_until

COUNTING = """
[service.counting]
kind = "command"
command = ["/bin/sh", "-c", "i=0; while :; do i=$$((i+1)); echo line $$i; sleep 0.005; done"]
"""


class Versions:
    """Copies of the package, and the link that says which is installed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.current = directory / "current"

    def make(self, version: str, **replacements: tuple[str, str]) -> Path:
        """A version, with a text replaced in the module of that name (``control_baton``: agent/control/baton.py)."""
        tree = self._directory / version
        shutil.copytree(SOURCE / "agent", tree / "agent", ignore=shutil.ignore_patterns("__pycache__"))
        (tree / "agent" / "__init__.py").write_text(f'"""A version."""\n\n__version__ = "{version}"\n')
        for module, (before, after) in replacements.items():
            file = tree / "agent" / f"{module.replace('__', '/')}.py"
            text = file.read_text()
            assert before in text
            file.write_text(text.replace(before, after, 1))
        return tree

    def install(self, version: str) -> None:
        """From now on the link leads there, in one step."""
        scratch = self._directory / "scratch"
        scratch.symlink_to(version)
        scratch.rename(self.current)


def dawdling(seconds: float) -> tuple[str, str]:
    """What makes a version that follows take its time before it looks at anything."""
    first = "    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)\n"
    return first, f"{first}    time.sleep({seconds})\n"


def pids(agent: Agent) -> dict[str, int | None]:
    return {service["name"]: service["pid"] for service in agent.status()["services"]}


def upgrade(agent: Agent) -> dict[str, Any]:
    """Hand over to whatever is installed, wait until that is decided, and return the report."""
    return decided(agent, agent.client.request("POST", "/v1/upgrade")["id"])


def decided(agent: Agent, handover: str) -> dict[str, Any]:
    """The report of a hand-over, once it is decided."""
    report: dict[str, Any] = {}

    def told() -> bool:
        report.update(agent.client.request("GET", "/v1/handover"))
        return bool(report["id"] == handover and report["state"] != "begun")

    wait_until(told)
    return report


def numbers(agent: Agent, name: str = "counting") -> list[int]:
    """The numbers of the lines in a log; each line must be whole, and have one stamp."""
    text = agent.log(name)
    lines = text.splitlines()[: None if text.endswith("\n") else -1]
    found = [re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z line (\d+)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return [int(match[1]) for match in found if match]
