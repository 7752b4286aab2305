"""``agentctl capture trigger``: have an armed capture keep what it saw, as if what it is armed for had happened."""

from __future__ import annotations

import os
import time

import click

from agent.cli import output
from agent.cli.base import Session, command, no_such
from agent.cli.names import SERVICE
from agent.errors import UsageError
from agent.linux.owner import owner, seen_by


@command("trigger", examples=("agentctl capture trigger edge --reason 'customer reports timeouts'",))
@click.argument("name", type=SERVICE)
@click.option("--reason", metavar="TEXT", default="", help="Why; shown with the pin.")
def trigger(session: Session, name: str, reason: str) -> None:
    """Keep what the armed capture NAME saw before this instant, and sees for a while after it.

    How long before and after is declared (`trigger.before`, `trigger.after`). While a trigger is being kept, another
    one changes nothing. `agentctl capture pin` keeps any span, of any capture.
    """
    from agent.cli.capture_pins import checked
    from agent.cli.stores import place
    from agent.declaration.load import load
    from agent.declaration.model import Capture
    from agent.workers.capture.trigger import pull

    why = checked(reason) or f"agentctl capture trigger {name}"
    paths = session.paths()
    with seen_by(owner(*paths.owned)):
        services = load(paths, os.environ).services
    service = services.get(name)
    if not isinstance(service, Capture):
        captures = [one.name for one in services.values() if isinstance(one, Capture)]
        raise UsageError(no_such("capture", name, captures))
    if service.trigger is None:
        raise UsageError(f"{name} is not armed: it has no `trigger`; `agentctl capture pin {name}` keeps a span of it")
    with place(paths, name).seen() as directory:
        pulled = pull(directory, service.trigger, why, time.time_ns(), durable=True)
    if session.json:
        output.document({"pin": None if pulled is None else pulled.pin.id})
    elif pulled is None:
        print(f"{name}: triggered already, and still kept")
    else:
        before, after = service.trigger.before, service.trigger.after
        print(f"{name}: kept from {before:g} s before until {after:g} s after, pin {pulled.pin.id}")
