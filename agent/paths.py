"""Where everything lives below the prefix: the one place that spells a path of the contract."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

DEFAULT_PREFIX = "/srv"

SCAN_MEMORY = "scan.db"
"""What a scan service remembers, in its directory below the spool."""

BUDGET_VARIABLE = "SERVICE_BUDGET_FD"
"""The variable that names the descriptor of the budget of scans, as the agent hands it on."""

Location = str | os.PathLike[str]


def native_prefix() -> str:
    """The prefix that this program works below when nobody names one: where it is installed, else ``/srv``.

    The installed form lies in ``PREFIX/lib/agent/VERSION/``, with the record of the installation beside it. A package
    lays it elsewhere and without one.
    """
    if getattr(sys, "frozen", False):
        library = Path(sys.executable).resolve().parent.parent
        if library.parts[-2:] == ("lib", "agent") and (library / "install.json").is_file():
            return str(library.parent.parent)
    return DEFAULT_PREFIX


class Paths(NamedTuple):
    """The layout below one prefix. ``declaration`` is ``key/env.toml`` unless the command line named another.

    Interpolation files, projects and secrets stand beside the declaration (``key`` is its directory). ``credentials``
    is where systemd has laid what the unit is given by LoadCredential= and its like, systemd.exec(5), if anything.
    """

    prefix: Path
    declaration: Path
    credentials: Path | None = None

    @classmethod
    def of(cls, prefix: Location | None = None, declaration: Location | None = None) -> Paths:
        """The prefix (``prefix``, else $PREFIX, else ``native_prefix``) and the declaration's path, both absolute.

        Credentials are those of this process: a person's shell has none, whatever the agent's unit is given.
        """
        root = Path(prefix if prefix is not None else os.environ.get("PREFIX") or native_prefix()).absolute()
        chosen = Path(declaration).absolute() if declaration is not None else root / "key" / "env.toml"
        given = os.environ.get("CREDENTIALS_DIRECTORY")
        return cls(root, chosen, Path(given) if given else None)

    @property
    def own(self) -> bool:
        """Whether the declaration is the prefix's own, and not another file."""
        return self.declaration == self.prefix / "key" / "env.toml"

    def typed(self, words: str) -> str:
        """These words of ``agentctl`` as a person types them to mean this prefix."""
        if self.prefix == Paths.of().prefix:
            return f"agentctl {words}"
        import shlex  # for a message

        return f"agentctl --prefix {shlex.quote(str(self.prefix))} {words}"

    @property
    def key(self) -> Path:
        return self.declaration.parent

    @property
    def projects(self) -> Path:
        return self.key / "projects"

    @property
    def secrets(self) -> Path:
        return self.key / "secrets"

    def credential(self, name: str) -> Path | None:
        """The credential of that name; ``None`` when there is none."""
        found = self.credentials / name if self.credentials is not None else None
        return found if found is not None and os.path.lexists(found) else None

    def secret(self, name: str) -> Path:
        """Where a secret is: the credential of its name if there is one, else its file in ``key/secrets``."""
        return self.credential(name) or self.secrets / name

    @property
    def run(self) -> Path:
        return self.prefix / "run"

    @property
    def tmp(self) -> Path:
        return self.prefix / "tmp"

    @property
    def owned(self) -> tuple[Path, Path]:
        """Directories of the agent's user, by which it is known whose a prefix is. Only the second outlives
        ``agentctl uninstall``.
        """
        return self.run, self.spool

    @property
    def spool(self) -> Path:
        return self.prefix / "spool"

    @property
    def logs(self) -> Path:
        return self.prefix / "log"

    @property
    def socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def agent_pid(self) -> Path:
        return self.run / "agent.pid"

    @property
    def agent_lock(self) -> Path:
        return self.run / "agent.lock"

    @property
    def agent_spool(self) -> Path:
        return self.spool / "agent"

    @property
    def generation(self) -> Path:
        """Who our workers are, for a successor that starts after we were killed."""
        return self.run / "agent.generation.json"

    @property
    def scan_budget(self) -> Path:
        """What all scans together may send, and have sent."""
        return self.run / "scan.budget"

    def pid(self, service: str) -> Path:
        return self.run / f"{service}.pid"

    def config(self, service: str) -> Path:
        """``SERVICE_CONFIG``: the effective settings of one service, as JSON."""
        return self.run / f"{service}.json"

    def triggers(self, service: str) -> Path:
        """What happened, for an armed capture that runs as another user than the agent."""
        return self.run / f"{service}.triggers"

    def paused(self, service: str) -> Path:
        """There while a scan is paused by hand, whether it runs or not; what is in it is for people."""
        return self.run / f"{service}.paused"

    def ended(self, service: str) -> Path:
        """There when the run of a scan that is under way is to end now. The next start removes it."""
        return self.run / f"{service}.ended"

    def notify(self, service: str) -> Path:
        return self.run / f"{service}.notify"

    def heartbeat(self, service: str) -> Path:
        return self.tmp / f"{service}.heartbeat"

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def data(self, service: str) -> Path:
        return self.spool / service

    def service_lock(self, service: str) -> Path:
        """Held while the service runs, by the agent or by ``run-once``: a job never overlaps itself."""
        return self.run / f"{service}.lock"

    def secret_copies(self, service: str) -> Path:
        """Copies of a service's secrets that its own user can read, there while it runs."""
        return self.run / f"{service}.secrets"
