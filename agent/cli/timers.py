"""``agentctl timers``: when jobs run next and how they ended last, whoever starts them; and having systemd do it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, table, text
from agent.cli.base import CONTEXT_SETTINGS, EXIT_CODES, Session, command, epilog, shared_options
from agent.cli.guard import complain, interruptible
from agent.errors import DeclarationError, NotRunning, RequestRefused, RuntimeFailure

if TYPE_CHECKING:
    from agent.installation.timer_sync import SyncReport
    from agent.paths import Paths

HEADS = ("NAME", "SCHEDULER", "STATE", "NEXT RUN", "LEFT", "LAST RUN", "LAST EXIT", "SCHEDULE")


@click.group(
    "timers",
    context_settings=CONTEXT_SETTINGS,
    params=[*shared_options()],
    invoke_without_command=True,
    epilog=epilog(("agentctl timers", "agentctl timers sync"), EXIT_CODES),
)
@click.pass_context
def timers(context: click.Context) -> None:
    """Show every job: its schedule, when it runs next, when it ran last and how that ended.

    A job is started at its times by the agent or, with `scheduler = "systemd"`, by systemd, which is asked about those;
    that needs no running agent.
    """
    if context.invoked_subcommand is None:
        show(context.ensure_object(Session))


def show(session: Session) -> None:
    """Print all jobs."""
    answer = _answer(session)
    answer["inactive"] = _complete(answer["timers"])
    if session.json:
        output.document(answer)
        return
    if answer["timers"]:
        now = time.time()
        table.show(HEADS, [row(timer, now) for timer in answer["timers"]], right=("LEFT",))
    else:
        print("no jobs are declared")
    out_of_sync = answer["out_of_sync"]
    idle = [name for name in answer["inactive"] if name not in out_of_sync]
    for line in [*text.not_in_sync(out_of_sync), *text.not_active(idle)]:
        print(line)


def _answer(session: Session) -> dict[str, Any]:
    """What the agent says of its jobs; when none runs, or not for this user, those that systemd starts all the same."""
    try:
        return session.client().request("GET", "/v1/timers")
    except (NotRunning, RequestRefused) as refusal:
        if isinstance(refusal, RequestRefused) and refusal.status != 403:
            raise
        jobs, out_of_sync = _without_agent(session.paths())
        if jobs is None:
            raise refusal
        empty = {"next_run": None, "last_run": None, "last_exit": None, "state": "stopped", "scheduler": "systemd"}
        found = [
            {"name": name, "schedule": schedule, **empty, "enabled": enabled}
            for name, (schedule, enabled) in jobs.items()
        ]
        return {"timers": found, "out_of_sync": out_of_sync}


def _without_agent(paths: Paths) -> tuple[dict[str, tuple[str, bool]] | None, list[str]]:
    """The jobs that are declared to be systemd's, with their schedules and whether they are enabled, and which of them
    are not in sync.

    Who cannot read the declaration is told what was made of it last; ``None``: there is nothing of that.
    """
    from agent.linux.systemd import UNITS

    readable = os.access(paths.declaration, os.R_OK)
    if not readable and not any(Path(UNITS).glob("agent-job@*.timer.d")):
        return None, []
    from agent.declaration.load import load
    from agent.installation import timer_files, timers

    try:
        declaration = load(paths, os.environ)
    except DeclarationError as error:
        found = timer_files.look(timer_files.HERE, paths.prefix)
        if not found:
            return None, []
        complain(f"{error.problems[0]}; shown are the timers of the last `agentctl timers sync`")
        return {name: (timers.schedule(lies.timer or ""), True) for name, lies in found.items()}, []
    if declaration.agent.scheduler != "systemd":
        return None, []
    services = sorted(declaration.services.items())
    jobs = {name: (service.timer.source, service.enabled) for name, service in services if service.timer}
    return jobs, timer_files.out_of_sync(declaration, paths)


def _complete(found: list[dict[str, Any]]) -> list[str]:
    """Fill in what only systemd knows. What the agent knows of a job is about runs that somebody asked it for.

    Returns the names of those that should be started and are not, because their timers are not active.
    """
    names = [timer["name"] for timer in found if timer["scheduler"] == "systemd"]
    if not names:
        return []
    from agent.installation import timer_state
    from agent.linux import systemd

    if not systemd.booted():
        complain(f"systemd, which is to start {', '.join(names)}, does not run this machine")
        return []
    states = timer_state.ask(names)
    for timer in found:
        if state := states.get(timer["name"]):
            timer["next_run"] = state.next_run
            if timer["state"] in ("waiting", "stopped") or state.state == "running":
                timer["state"] = state.state
            if (state.last_run or 0.0) >= (timer["last_run"] or 0.0):
                timer["last_run"], timer["last_exit"] = state.last_run, state.last_exit
    enabled = {timer["name"] for timer in found if timer.get("enabled", True)}
    return [name for name, state in states.items() if not state.active and name in enabled]


def row(timer: dict[str, Any], now: float) -> tuple[str, ...]:
    """One job as the cells of ``HEADS``."""
    next_run = timer["next_run"]
    return (
        timer["name"],
        timer["scheduler"],
        timer["state"],
        text.moment(next_run),
        text.ABSENT if next_run is None else text.duration(next_run - now),
        text.moment(timer["last_run"]),
        text.optional(timer["last_exit"]),
        timer["schedule"],
    )


@command(
    "sync",
    examples=("agentctl timers sync", "agentctl timers sync --dry-run"),
    exit_codes="Exit codes: 0 systemd's timers are as declared, 1 the declaration or the command line is wrong and "
    "nothing was changed, 2 it failed.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Only write the files, for a system that lies below DIR and does not run.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; show what would be done.")
@interruptible()
def sync(session: Session, root: Path | None, dry_run: bool) -> None:
    """Make systemd's timers those that are declared, and those only.

    With `scheduler = "systemd"` each job gets drop-ins for agent-job@NAME.timer and agent-job@NAME.service in
    /etc/systemd/system, and its timer is enabled and started. What is no longer declared is stopped and removed, with
    `scheduler = "agent"` all of it; other files are never touched. Jobs that are running run on.
    """
    from agent.declaration.load import load
    from agent.installation import timer_sync

    paths = session.paths()
    if os.geteuid() == 0 and paths.own:
        from agent.cli.checks import given_to, running

        # A secret may be a credential: what a running agent was given, its jobs are taken to be given too.
        paths = paths._replace(credentials=paths.credentials or given_to(running(paths)))
    report = timer_sync.sync(load(paths, os.environ), paths, root, dry_run=dry_run)
    if session.json:
        import msgspec

        output.document(msgspec.to_builtins(report))
    else:
        for line in lines(report):
            print(line)
    if report.problems:
        raise RuntimeFailure("; ".join(report.problems))


def lines(report: SyncReport) -> list[str]:
    """What was done to which timer, and how many are as they were."""
    would = "would be " if report.dry_run else ""
    verbs = {"removed": report.removed, "changed": report.changed, "started": report.started}
    changes = [f"{name}: {would}{verb}" for verb, names in verbs.items() for name in names]
    kept = report.unchanged
    if kept or not changes:
        changes.append(f"{kept} {'other ' if changes else ''}timer{'' if kept == 1 else 's'} as declared")
    return changes


timers.add_command(sync)
