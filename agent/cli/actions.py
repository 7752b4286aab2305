"""``agentctl start|stop|restart NAME…``: ask, wait, and tell what became of each."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, text
from agent.cli.base import Session, command, no_such
from agent.cli.guard import complain
from agent.cli.names import SERVICE
from agent.errors import EXIT_RUNTIME, AgentError, DeclarationError, UsageError

if TYPE_CHECKING:
    from agent.control.client import Client
    from agent.paths import Paths

AT_ONCE = 16
"""Requests under way at a time: services do not wait for each other, and the agent bounds its connections."""

WAIT_TIMEOUT = 24 * 3600.0
"""Seconds to wait for an outcome. The agent bounds it by the service's own timeouts, and those may be long."""


def _action(name: str, what: str) -> click.Command:
    @command(name, examples=(f"agentctl {name} api", f"agentctl {name} --no-wait api edge_capture"), help=what)
    @click.argument("names", metavar="NAME...", nargs=-1, required=True, type=SERVICE)
    @click.option("--no-wait", is_flag=True, help="Return once the request is accepted.")
    def act(session: Session, names: tuple[str, ...], no_wait: bool) -> None:
        perform(session, name, list(dict.fromkeys(names)), wait=not no_wait)

    return act


start = _action(
    "start",
    "Start the services NAME and wait until they run.\n\n"
    "A job is run now, outside its calendar. Exits 2 when one of them did not come up, saying why, or ended and was "
    "started once more by the agent; if a NAME is not declared, nothing is done to any of them.",
)
stop = _action(
    "stop",
    "Stop the services NAME and wait until no process of theirs is left.\n\n"
    "A stopped service stays stopped until it is started again, whatever its restart policy. If a NAME is not "
    "declared, nothing is done to any of them.",
)
restart = _action(
    "restart",
    "Stop the services NAME, start them again and wait until they run.\n\n"
    "Exits 2 when one of them did not come up, saying why, or ended and was started once more by the agent; if a NAME "
    "is not declared, nothing is done to any of them.",
)


def perform(session: Session, action: str, names: Sequence[str], *, wait: bool) -> None:
    """Do it to all of them and report each as it is done; raises when a name is unknown or an outcome is not ok."""
    insist_on_services(session, names)
    client = session.client()
    patient = session.client(WAIT_TIMEOUT) if wait else client
    failed = []
    outcomes: dict[str, dict[str, Any]] = {}
    for name, outcome in each(names, lambda name: ask(patient, action, name, wait=wait)):
        outcomes[name] = outcome
        if not outcome["ok"]:
            failed.append(name)
        if not session.json:
            tell(outcome)
    if session.json:
        output.document({"outcomes": [outcomes[name] for name in names]})
    if failed:
        click.get_current_context().exit(EXIT_RUNTIME)


def insist_on_services(session: Session, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The reports of these services, by name. Raises ``UsageError`` when there is none of a name."""
    services = session.client().request("GET", "/v1/status")["services"]
    known = {str(service["name"]): service for service in services}
    if unknown := [name for name in names if name not in known]:
        since = _declared(session)
        raise UsageError(
            "; ".join(
                _not_read(name, session.paths()) if name in since else no_such("service", name, known)
                for name in unknown
            )
        )
    return {name: known[name] for name in names}


def _not_read(name: str, paths: Paths) -> str:
    reload = paths.typed("reload")
    return f"no service is named {name!r} yet; it has been declared since the agent read its declaration: {reload}"


def _declared(session: Session) -> Collection[str]:
    """The services that the files declare, which the agent may not have read yet; none where we cannot read them."""
    from agent.declaration.load import load

    try:
        return load(session.paths(), os.environ).services
    except DeclarationError:
        return ()


def ask(client: Client, action: str, name: str, *, wait: bool) -> dict[str, Any]:
    """One request, and its outcome. A failure to ask is an outcome too: the other services still get theirs."""
    try:
        return client.request("POST", f"/v1/services/{name}/{action}", {"wait": "true" if wait else "false"})
    except AgentError as error:
        return {"name": name, "action": action, "ok": False, "state": None, "message": str(error), "pid": None}


def each(names: Sequence[str], do: Callable[[str], dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Call ``do`` for all names, ``AT_ONCE`` at a time, and yield name and result in the order of completion.

    Raises what ``do`` raises.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, dict[str, Any] | Exception]] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)

    def work() -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((name, do(name)))
            except Exception as error:  # it belongs to the thread that waits
                done.put((name, error))

    for _ in range(min(AT_ONCE, len(names))):
        threading.Thread(target=work, daemon=True).start()
    for _ in names:
        name, result = done.get()
        if isinstance(result, Exception):
            raise result
        yield name, result


def tell(outcome: dict[str, Any]) -> None:
    """One line for one service: on stdout what was done, on stderr what was not."""
    state = outcome["state"]
    line = f"{outcome['name']}: {outcome['message']}" + (f" ({state})" if state and state != outcome["message"] else "")
    if outcome["ok"]:
        print(text.safe(line), flush=True)
    else:
        complain(line)
