"""What ``agentctl doctor`` says of those who are to be told: whether what tells them is there."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from agent.cli.checks import Check
from agent.declaration.model import Declaration, Notify
from agent.linux.spawn import base_environment

SENDMAIL = "/usr/sbin/sendmail"
"""Where every mail system puts it (Filesystem Hierarchy Standard 3.0, 4.10)."""

_PATIENCE = 2.0


def check_notifications(declaration: Declaration, port: int = 25) -> list[Check]:
    """One for each way that is declared. ``port`` is where a mail system listens on this host."""
    notifies = list(declaration.notifies.values())
    checks: list[Check] = []
    if hooked := [notify for notify in notifies if notify.webhook]:
        checks.append(_curl(hooked))
    if mailed := [notify for notify in notifies if notify.email]:
        checks.append(_mail(mailed, port))
    return checks + [_program(notify) for notify in notifies if notify.command]


def _curl(notifies: list[Notify]) -> Check:
    found = shutil.which("curl", path=base_environment(os.environ)["PATH"])
    if found:
        return Check("webhooks", "ok", f"they go by {found}")
    return Check("webhooks", "fail", f"curl is not installed: {_named(notifies)} cannot be told", "apt install curl")


def _mail(notifies: list[Notify], port: int) -> Check:
    try:
        socket.create_connection(("127.0.0.1", port), _PATIENCE).close()
    except OSError:
        if os.access(SENDMAIL, os.X_OK):
            return Check("mail", "ok", f"it goes by {SENDMAIL}, as nobody listens on port {port} of this host")
        finding = (
            f"nobody listens on port {port} of this host, and there is no {SENDMAIL}: {_named(notifies)} cannot be told"
        )
        return Check("mail", "fail", finding, "install a mail system, such as postfix or msmtp-mta")
    return Check("mail", "ok", f"it goes to port {port} of this host")


def _program(notify: Notify) -> Check:
    program = (notify.command or ("",))[0]
    found = shutil.which(program, path=base_environment(os.environ)["PATH"])
    if found:
        return Check("notify", "ok", f"{notify.name} is told by {found}")
    missing = "cannot be executed" if Path(program).exists() else "is not there"
    return Check(
        "notify", "fail", f"{program} {missing}: {notify.name} cannot be told", "install it, or correct the path"
    )


def _named(notifies: list[Notify]) -> str:
    return ", ".join(notify.name for notify in notifies[:5]) + (" and others" if len(notifies) > 5 else "")
