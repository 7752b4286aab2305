"""``agentctl scan now NAME``: start a scan that is not due, and watch it to its end."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from agent.cli import output, scan_progress, text
from agent.cli.actions import ask, perform
from agent.cli.base import Session, command
from agent.cli.guard import complain, interruptible
from agent.cli.names import SCAN
from agent.cli.scan_orders import insist_on_scans
from agent.errors import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_OK, EXIT_RUNTIME, NotRunning, RuntimeFailure
from agent.linux.files import read_pid
from agent.linux.process import stat

if TYPE_CHECKING:
    from agent.control.client import Client

LOOK = 0.25
"""Seconds between two looks at it."""
LINE_EVERY = 10.0
"""Seconds between two lines in a pipe; one more is printed whenever it is held, or goes on."""
SILENCE = 20.0
"""Seconds for which an agent that becomes another version of itself may be away."""

ENDS = ("scan_finished", "scan_failed", "scan_stopped", "scan_interrupted")
"""What the worker says of how it ended."""


class End(NamedTuple):
    """How a run ended: the exit code of the contract, and why, in a line."""

    code: int
    message: str


@command(
    "now",
    examples=("agentctl scan now lan_scan", "agentctl scan now lan_scan --no-wait"),
    exit_codes="Exit codes: those of the run: 0 it went through, 1 it is configured wrongly, 2 it failed or was ended "
    "before it was through; 130 Ctrl-C, and the scan goes on.",
)
@click.argument("name", type=SCAN)
@click.option("--no-wait", is_flag=True, help="Return once it is started.")
def now(session: Session, name: str, no_wait: bool) -> None:
    """Start the scan NAME now, though it is not due, and show how far it is until it ends.

    In a terminal that is a bar, in a pipe a line now and then, with --json one document at the end. Ctrl-C ends the
    watching and not the scan. Refused for a scan that runs already, or is disabled.
    """
    insist_on_scans(session, (name,), enabled=True)
    if no_wait:
        perform(session, "now", [name], wait=False)
        return
    client = session.client()
    cursor = _newest(client)
    outcome = ask(client, "now", name, wait=True)
    if not outcome["ok"]:
        raise RuntimeFailure(f"{name}: {outcome['message']}")
    begun = time.monotonic()
    with interruptible():
        try:
            figures, end = _watch(session, name, cursor)
        except KeyboardInterrupt:
            goes_on = f"{name} goes on; it ends with: {session.paths().typed(f'scan stop {name}')}"
            complain(f"agentctl: {goes_on}")
            click.get_current_context().exit(EXIT_INTERRUPTED)
    seconds = round(time.monotonic() - begun, 3)
    if session.json:
        told = {"name": name, "exit_code": end.code, "message": end.message, "seconds": seconds, "figures": figures}
        output.document(told)
    elif end.code:
        complain(f"agentctl: {name}: {end.message}")
    else:
        print(text.safe(f"{name}: {end.message}"))
    click.get_current_context().exit(end.code)


def _watch(session: Session, name: str, cursor: int) -> tuple[dict[str, Any], End]:
    """Show how far it is until its end has been told of. Raises ``NotRunning`` when there is no agent any more."""
    client, pid = session.client(), read_pid(session.paths().agent_pid)
    show = _Shown(name, plain=session.json)
    with show.shown():
        figures: dict[str, Any] = {}
        events: list[dict[str, Any]] = []
        heard = time.monotonic()
        while True:
            try:
                # In this order: what it told last is there when its end is.
                new = list(client.stream("/v1/events", {"after": str(cursor), "limit": "1000", "service": name}))
                service = client.request("GET", f"/v1/services/{name}")
                heard = time.monotonic()
            except NotRunning:
                # It may be becoming another version of itself, and be the same process then.
                if time.monotonic() - heard > SILENCE or pid is None or stat(pid) is None:
                    raise
                new, service = [], {}
            for event in new:
                cursor = event["cursor"]
                events.append(event)
            figures = service.get("figures") or figures
            if (end := ended(events)) is not None:
                return figures, end
            show(figures)
            time.sleep(LOOK)


def ended(events: list[dict[str, Any]]) -> End | None:
    """How the run ended that these events are of, from its start on; ``None`` while it has not."""
    said, cause = None, ""
    for event in events:
        kind, message, data = event.get("kind"), str(event.get("message", "")), event.get("data", {})
        if kind in ENDS:
            said = kind, message
        elif kind in ("run_timeout", "start_timeout", "hung"):
            cause = message
        elif kind == "spawn_failed":
            return End(EXIT_RUNTIME, f"could not be started: {message}")
        elif kind == "exited":
            code = data.get("code")
            if cause:
                return End(EXIT_RUNTIME, cause)
            if said is not None and (said[0] != "scan_finished" or code == EXIT_OK):
                through = said[0] == "scan_finished"
                return End(EXIT_OK if through else _failed(code), said[1])
            return End(EXIT_OK if code == EXIT_OK else _failed(code), message)  # it may have told too much to be heard
    return None


def _failed(code: object) -> int:
    return EXIT_CONFIGURATION if code == EXIT_CONFIGURATION else EXIT_RUNTIME


def _newest(client: Client) -> int:
    """The cursor of what happened last."""
    return max((int(event["cursor"]) for event in client.stream("/v1/events", {"limit": "1"})), default=0)


class _Shown:
    """A bar in a terminal, or a line now and then."""

    def __init__(self, name: str, *, plain: bool) -> None:
        self._name = name
        self._silent = plain
        self._terminal = not plain and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._last = 0.0
        self._held: object = None

    def __call__(self, figures: dict[str, Any]) -> None:
        if self._silent or not figures:
            return
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{scan_progress.bar(figures, columns)}", end="", flush=True)
            return
        now, held = time.monotonic(), figures.get("held")
        if not self._last or now - self._last >= LINE_EVERY or held != self._held:
            self._last, self._held = now, held
            print(f"{self._name}: {scan_progress.line(figures)}", flush=True)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Afterwards nothing of the bar is left."""
        try:
            yield
        finally:
            if self._terminal:
                print("\r\x1b[K", end="", flush=True)
