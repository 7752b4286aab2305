"""Versions of the agent that follow each other, side by side and reached by a link, as an installation lays them.

They are copies of the package, or of the built program with modules compiled anew.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tests.binary import vary
from tests.harness import SOURCE, Agent, environment, wait_until

COUNTING = """
[service.counting]
kind = "command"
command = ["/bin/sh", "-c", "i=0; while :; do i=$$((i+1)); echo line $$i; sleep 0.005; done"]
"""


class Versions:
    """What lies side by side, and the link that says which is installed; that is what the agent runs from."""

    def __init__(self, agent: Agent, directory: Path) -> None:
        self._agent = agent
        self._directory = directory
        self._built = agent.program is not None
        self.call("current")

    def make(self, version: str, **replacements: tuple[str, str]) -> None:
        """A version, with a text replaced in the module of that name (``control__baton``: agent/control/baton.py)."""
        sources = {}
        for module, (before, after) in replacements.items():
            file = f"agent/{module.replace('__', '/')}.py"
            text = (SOURCE / file).read_text()
            assert before in text
            sources[file] = text.replace(before, after, 1)
        tree = self._directory / version
        if self._built:
            vary(tree, version, sources)
            return
        # With what Python has compiled of it, which is as good there: else each version would be compiled anew.
        shutil.copytree(SOURCE / "agent", tree / "agent")
        sources["agent/__init__.py"] = f'"""A version."""\n\n__version__ = "{version}"\n'
        for file, text in sources.items():
            (tree / file).write_text(text)

    def call(self, version: str) -> None:
        """From now on start the agent, and whoever asks it, as this version; ``current`` is whatever is installed."""
        if self._built:
            self._agent.program = self._directory / version / "agentctl"
        else:
            self._agent.source = self._directory / version

    def install(self, version: str) -> None:
        """From now on the link leads there, in one step."""
        scratch = self._directory / "scratch"
        scratch.symlink_to(version)
        scratch.rename(self._directory / "current")


def dawdling(seconds: float) -> tuple[str, str]:
    """What makes a version that follows take its time before it looks at anything."""
    first = "    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)\n"
    return first, f"{first}    time.sleep({seconds})\n"


def follows(pid: int, version: str) -> bool:
    """Whether that version has been executed in a process, however little it has done so far."""
    # A program is what is executed; the package is what Python finds named in its environment.
    program = str(Path(f"/proc/{pid}/exe").readlink())
    return f"/{version}/agentctl" in program or f"/{version}".encode() in environment(pid)


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
