"""The supervisors that are measured: how each is installed, configured, started and asked for its status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench import process

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".cache" / "bench"
PUBLISHED = ("supervisor==4.3.0", "circus==0.19.0", "setuptools<81")
"""From the Python package index, into an environment of their own. Both want setuptools at run time."""

COMMAND = " ".join(process.WORKER)


class Contestant(ABC):
    """One supervisor, running ``count`` workers below ``directory``."""

    name: str
    ends_on = signal.SIGTERM

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory
        self.names = [f"w{number}" for number in range(count)]
        self.environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(directory)}
        self.pid = 0
        directory.mkdir(parents=True)
        self.configure()

    @abstractmethod
    def configure(self) -> None:
        """Write what it needs to run a worker for each of ``names``."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What starts it in the foreground."""

    def status_command(self) -> Sequence[str | Path] | None:
        """What shows the state of every service, when there is such a command."""
        return None

    @staticmethod
    @abstractmethod
    def version() -> str:
        """The release that is measured."""

    def start(self) -> None:
        with (self.directory / "output").open("ab") as output:
            self.pid = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ).pid

    def stop(self) -> None:
        """End it as its manual says; after 10 s kill what is left."""
        everyone = [self.pid, *process.descendants(self.pid)]
        os.kill(self.pid, self.ends_on)
        with suppress(TimeoutError):
            process.await_true(lambda: not self._left(everyone), f"the end of {self.name}", within=10, every=0.01)
        process.end_all(self._left([*everyone, *process.descendants(self.pid)]))

    @staticmethod
    def _left(pids: list[int]) -> list[int]:
        process.bury()
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


class Agent(Contestant):
    name = "agent"

    def configure(self) -> None:
        self.environment["PREFIX"] = str(self.directory)
        (self.directory / "key").mkdir()
        (self.directory / "key" / "env.toml").write_text(agent_declaration(self.names))

    def command(self) -> Sequence[str | Path]:
        return [Path(sys.executable).with_name("agentctl"), "run"]

    def status_command(self) -> Sequence[str | Path]:
        return [Path(sys.executable).with_name("agentctl"), "status"]

    @staticmethod
    def version() -> str:
        from agent import __version__

        return __version__


class Supervisord(Contestant):
    name = "supervisord"

    def configure(self) -> None:
        (self.directory / "supervisord.conf").write_text(supervisord_configuration(self.names))

    def command(self) -> Sequence[str | Path]:
        return [PEERS / "bin" / "supervisord", "-c", self.directory / "supervisord.conf"]

    def status_command(self) -> Sequence[str | Path]:
        return [PEERS / "bin" / "supervisorctl", "-c", self.directory / "supervisord.conf", "status"]

    @staticmethod
    def version() -> str:
        return published_version("supervisor")


class Circus(Contestant):
    name = "circus"

    def configure(self) -> None:
        watchers = "".join(f"[watcher:{name}]\ncmd={COMMAND}\n" for name in self.names)
        (self.directory / "circus.ini").write_text(
            f"[circus]\nendpoint = ipc://{self.directory}/control\npubsub_endpoint = ipc://{self.directory}/events\n"
            f"{watchers}"
        )

    def command(self) -> Sequence[str | Path]:
        return [PEERS / "bin" / "circusd", self.directory / "circus.ini"]

    def status_command(self) -> Sequence[str | Path]:
        return [PEERS / "bin" / "circusctl", "--endpoint", f"ipc://{self.directory}/control", "status"]

    @staticmethod
    def version() -> str:
        return published_version("circus")


class Runit(Contestant):
    name = "runit"
    ends_on = signal.SIGHUP  # runsvdir(8): SIGTERM would leave its services to themselves

    def configure(self) -> None:
        write_run_scripts(self.directory / "services", self.names)

    def command(self) -> Sequence[str | Path]:
        return ["runsvdir", "-P", self.directory / "services"]

    def status_command(self) -> Sequence[str | Path]:
        return ["sv", "status", *(self.directory / "services" / name for name in self.names)]

    @staticmethod
    def version() -> str:
        return package_version("runit")


class S6(Contestant):
    name = "s6"

    def configure(self) -> None:
        write_run_scripts(self.directory / "services", self.names)

    def command(self) -> Sequence[str | Path]:
        return ["s6-svscan", self.directory / "services"]

    @staticmethod
    def version() -> str:
        return package_version("s6")


ALL: tuple[type[Contestant], ...] = (Agent, Supervisord, Circus, Runit, S6)
"""dinit belongs here too; Debian 12 does not package it."""


def agent_declaration(names: list[str]) -> str:
    """An ``env.toml`` with a worker of each name."""
    return "".join(
        f'[service.{name}]\nkind = "command"\ncommand = ["{process.WORKER[0]}", "{process.WORKER[1]}"]\n'
        'restart = "always"\nmax_restarts = 1000000\n'
        for name in names
    )


def supervisord_configuration(names: list[str]) -> str:
    """A ``supervisord.conf`` with the same; everything it writes is beside it."""
    programs = "".join(
        f"[program:{name}]\ncommand={COMMAND}\nautorestart=true\nstartretries=1000000\n" for name in names
    )
    return (
        "[supervisord]\nnodaemon=true\nuser=root\nlogfile=%(here)s/log\npidfile=%(here)s/pid\n"
        "childlogdir=%(here)s\n[unix_http_server]\nfile=%(here)s/socket\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl=unix://%(here)s/socket\n{programs}"
    )


def write_run_scripts(directory: Path, names: list[str]) -> None:
    for name in names:
        script = directory / name / "run"
        script.parent.mkdir(parents=True)
        script.write_text(f"#!/bin/sh\nexec {COMMAND}\n")
        script.chmod(0o755)


def install_peers() -> None:
    """The published ones into ``.cache/bench``; those that Debian packages were installed by ``make bench``."""
    stamp = PEERS / "installed"
    if stamp.exists() and stamp.read_text() == repr(PUBLISHED):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS], check=True)
    pip: list[str | Path] = [PEERS / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *PUBLISHED], check=True)
    stamp.write_text(repr(PUBLISHED))


def published_version(project: str) -> str:
    return next(pin.split("==")[1] for pin in PUBLISHED if pin.startswith(f"{project}=="))


def package_version(package: str) -> str:
    """The upstream part of a Debian package's version."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"^\d+:|-[^-]*$", "", found)
