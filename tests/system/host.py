"""A machine with the agent installed on it, as an operator meets it: units, declaration, ``agentctl``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from agent.control.client import Client
from tests.binary import Built, built
from tests.harness import PATIENCE, wait_until
from tests.system.container import Container

SOURCE = Path(__file__).resolve().parents[2]
UNIT = "agent.service"


class Host(Container):
    """A container in which ``agent.service`` is installed, enabled and not started; nothing is declared yet."""

    def __init__(self, *, prefix: str = "/srv", **options: Any) -> None:
        super().__init__(**options)
        self.prefix = prefix

    def install(self, program: Built | None = None) -> None:
        """Install it as an operator does who has copied the one file to the machine, and enable it."""
        self.lay(program)
        self.enable()

    def lay(self, program: Built | None = None) -> None:
        """The first half of that: everything is where it belongs, and nothing is enabled."""
        self.copy_in((program or built()).onefile, "/root/agentctl")
        self.run(["/root/agentctl", "install", "--prefix", self.prefix])

    def enable(self) -> None:
        """The second half: it will start when the machine boots."""
        self.run(["systemctl", "enable", "--quiet", UNIT])

    # -- what the operator does -------------------------------------------------------------------------------------

    def declare(self, text: str) -> None:
        """Write ``key/env.toml`` as it is installed: root's, and readable by the agent."""
        file = self.write(f"{self.prefix}/key/env.toml", text, 0o640)
        self.run(["chown", "root:agent", f"{self.prefix}/key/env.toml"])
        assert file.exists()

    def drop_in(self, name: str, text: str, unit: str = UNIT) -> None:
        """Change a unit the way an operator does, and let systemd know."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}.conf", text)
        self.run(["systemctl", "daemon-reload"])

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``systemctl`` for the agent's unit: ``systemctl("start")``."""
        return self.run(["systemctl", *words, UNIT], check=check)

    def agentctl(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """The command an operator types."""
        return self.run([f"{self.prefix}/bin/agentctl", *words], check=check, **options)

    # -- what the operator sees -------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The agent's PID inside, as systemd has it; 0 when it does not run."""
        return int(self.show(UNIT, "MainPID")["MainPID"])

    def status(self) -> dict[str, Any]:
        """``agentctl status --json``."""
        found: dict[str, Any] = json.loads(self.agentctl("status", "--json").stdout)
        return found

    def service(self, name: str) -> dict[str, Any]:
        """The report of one service."""
        return _named(self.status(), name)

    def until(self, name: str, patience: float = PATIENCE, **wanted: Any) -> dict[str, Any]:
        """Wait until the report of a service has these values."""
        report: dict[str, Any] = {}

        def matches() -> bool:
            asked = self.agentctl("status", "--json", check=False)
            if asked.returncode:  # an agent that has just been started may take its time on a slow machine
                report["status"] = asked.stderr
                return False
            report.update(_named(json.loads(asked.stdout), name))
            return all(report[key] == value for key, value in wanted.items())

        wait_until(matches, lambda: f"{name} is not {wanted} but {report}\n{self.journal('-u', UNIT)}", patience)
        return report

    def in_effect(self) -> dict[str, Any]:
        """The declaration that the agent goes by, whatever stands in the file by now."""
        return Client(self.path(f"{self.prefix}/run/agent.sock")).request("GET", "/v1/config")

    def events(self, *words: str) -> list[dict[str, Any]]:
        """``agentctl events --json``, oldest first."""
        return [json.loads(line) for line in self.agentctl("events", "--json", *words).stdout.splitlines()]

    def log(self, name: str) -> str:
        """The current log of a service."""
        return self.path(f"{self.prefix}/log/{name}.log").read_text(errors="replace")

    # -- programs that the tests declare ----------------------------------------------------------------------------

    def program(self, name: str, text: str) -> str:
        """A program for a declaration: a script that Python runs. Returns its path inside."""
        self.write(f"/opt/tests/{name}", f"#!/usr/bin/python3\n{text}", 0o755)
        return f"/opt/tests/{name}"

    def lay_program(self, path: str) -> None:
        """This machine's own program at ``path``, with what it loads: it is the same Debian."""
        loaded = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for file in [path, *re.findall(r"=> (/\S+)", loaded)]:
            if self.run(["test", "-e", file], check=False).returncode:
                self.copy_in(Path(file).resolve(), file)

    def keep_evidence(self, directory: Path) -> None:
        """The logs of the agent and of its services too."""
        super().keep_evidence(directory)
        for inside in (f"{self.prefix}/log", f"{self.prefix}/key"):
            if self.path(inside).is_dir():
                shutil.copytree(self.path(inside), directory / inside.lstrip("/"), dirs_exist_ok=True)


def _named(status: dict[str, Any], name: str) -> dict[str, Any]:
    """The report of one service in what ``agentctl status --json`` tells."""
    found: dict[str, Any] = next(one for one in status["services"] if one["name"] == name)
    return found
