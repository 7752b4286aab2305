"""The checks of ``agentctl doctor``. Each looks, changes nothing, and comes back with a verdict and a way to mend."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agent.cli.elsewhere import hint
from agent.cli.text import size, some
from agent.control.client import Client
from agent.declaration.load import load
from agent.declaration.model import Capture, Command, Declaration
from agent.declaration.sources import AS_ROOT
from agent.errors import AgentError, DeclarationError, NotRunning, RequestRefused, RuntimeFailure, SpawnFailed
from agent.installation import timer_state
from agent.installation.timer_files import HERE, out_of_sync
from agent.installation.timers import render
from agent.linux import cgroup, libpcap, systemd
from agent.linux.capability_sets import NET_RAW, in_a_drop_in, mask, names, parse_sets
from agent.linux.environment import base_environment
from agent.linux.files import read_pid
from agent.linux.owner import owner, seen_by, stranger
from agent.linux.spawn import SpawnRequest, run
from agent.linux.users import Credentials, resolve_user
from agent.paths import Paths

Verdict = Literal["ok", "warn", "fail"]

LEAST_DISK = 0.02
LITTLE_DISK = 0.10
"""Free parts of the file system: below the first nothing can be relied on, below the second it is time to act."""

FILES_OF_AGENT, FILES_PER_SERVICE = 64, 4
"""File descriptors that the agent holds for itself, and for each service (pidfd, log pipe, log file, notify socket)."""

TIMESYNC = Path("/run/systemd/timesync/synchronized")
"""Exists once systemd-timesyncd has set the clock (systemd-timesyncd.service(8))."""

EVENTS = {"limit": "1000"}
"""As many of the last ones as are looked through."""

OF_THE_AGENT = {"users", "prefix", "capabilities", "open files", "cgroup"}
"""Checks of what the agent's process is and may."""

PRIVILEGED = "its unit permits it with the drop-in privileged.conf, in share/doc/agent/examples"

COMMAND_TIMEOUT = 10.0
"""Seconds that a foreign command may take to say its version."""


class Check(NamedTuple):
    """One row. ``mend`` is empty when there is nothing to mend."""

    name: str
    verdict: Verdict
    finding: str
    mend: str = ""


def examine(paths: Paths, environ: Mapping[str, str]) -> list[Check]:
    """All checks, in the order in which they are worth mending."""
    from agent.cli.checks_notify import check_notifications  # which has its form from here

    answering, agent = check_agent(paths)
    pid = agent["pid"] if agent else None
    user = whose(paths, status_of(pid) if pid else "")
    declared, declaration = check_declaration(paths._replace(credentials=given_to(pid)), environ, user)
    kinds = {service.kind for service in declaration.services.values()} if declaration else {"capture", "scan"}
    checks = [
        declared,
        answering,
        *(check_users(declaration, status_of(pid)) if declaration else ()),
        check_prefix(paths, user),
        *check_disks([paths.prefix, paths.spool, paths.logs]),
        *(check_budgets(declaration, paths) if declaration else ()),
        check_libpcap(needed="capture" in kinds),
        check_nmap(needed="scan" in kinds),
        check_raw_sockets(status_of(pid), needed="capture" in kinds),
        *(check_capabilities(declaration, status_of(pid)) if declaration else ()),
        *(check_notifications(declaration) if declaration else ()),
        check_files(_limits(pid), services=len(declaration.services) if declaration else 0),
        check_cgroup(agent["containment"] if agent else None, cgroup.explain(paths.prefix)),
        *(check_timers(declaration, paths) if declaration else ()),
        *(check_limits(declaration, _events_since(paths, agent["since"])) if agent and declaration else ()),
        check_clock(),
    ]
    return unjudged(checks, agent_seen=agent is not None) if stranger(*paths.owned) else checks


def unjudged(checks: Iterable[Check], *, agent_seen: bool) -> list[Check]:
    """The same for a person who is neither root nor the agent's user: what he may not do says nothing about the agent.

    ``agent_seen``: its process was looked at, and not that of this command.
    """
    finding = f"cannot be judged by user {resolve_user(None, None).name}"
    hidden = {"prefix"} if agent_seen else OF_THE_AGENT
    return list(
        dict.fromkeys(Check(one.name, "warn", finding, AS_ROOT) if one.name in hidden else one for one in checks)
    )


def whose(paths: Paths, status: str) -> Credentials | None:
    """Whose eyes to look with, for root, who would see more than the agent does: those of its process, by the text of
    /proc/PID/status (proc(5)), or when that is empty of the user whom the prefix belongs to. ``None``: our own.
    """
    if not status:
        return owner(*paths.owned)
    uid, gid = (int(_field(status, name, "0 0").split()[1]) for name in ("Uid:", "Gid:"))
    if os.geteuid() != 0 or uid == 0 or parse_sets(status).effective & mask(["CAP_DAC_OVERRIDE"]):
        return None
    groups = tuple(int(word) for word in _field(status, "Groups:", "").split())
    return replace(resolve_user(str(uid), str(gid)), groups=groups)


def running(paths: Paths) -> int | None:
    """The agent's process, found without asking it: where systemd holds the socket, that would start one."""
    pid = read_pid(paths.agent_pid)
    with suppress(OSError):
        for opened in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if opened.samefile(paths.agent_lock):
                    return pid
    return None


def check_declaration(
    paths: Paths, environ: Mapping[str, str], user: Credentials | None = None
) -> tuple[Check, Declaration | None]:
    """Whether the declaration is there, right, and for the eyes of ``user`` too; and what it says, if it is right."""
    if _missing(paths.declaration) and paths.credential(paths.declaration.name) is None:
        return Check("declaration", "fail", f"{paths.declaration} does not exist", paths.typed("init")), None
    declaration = None
    try:
        declaration = load(paths, environ)
        with seen_by(user):
            load(paths, environ)
    except DeclarationError as error:
        first = str(error.problems[0])
        if all(problem.text.endswith(AS_ROOT) for problem in error.problems):
            return Check("declaration", "warn", first.removesuffix(f": {AS_ROOT}"), AS_ROOT), declaration
        told = f"{_counted(len(error.problems), 'problem')}, the first: {first}"
        mend = "agentctl validate shows all of them" if declaration is None else "that; agentctl reload tells of more"
        return Check("declaration", "fail", told, mend), declaration
    count = _counted(len(declaration.services), "service")
    return Check("declaration", "ok", f"{declaration.file}: {count}"), declaration


def check_agent(paths: Paths) -> tuple[Check, dict[str, Any] | None]:
    """Whether an agent answers on this prefix; and what it says of itself, if so."""
    try:
        agent: dict[str, Any] = Client(paths.socket).request("GET", "/v1/status")["agent"]
    except NotRunning as error:
        finding = f"{error}{hint(paths.prefix)}"
        return Check("agent", "warn", finding, "systemctl start agent, or agentctl run"), None
    except RequestRefused as error:
        mend = "ask as root" if error.status == 403 else "journalctl -u agent"
        return Check("agent", "warn", str(error), mend), None
    except AgentError as error:
        return Check("agent", "warn", str(error), "journalctl -u agent"), None
    if not isinstance(agent["pid"], int):  # it becomes part of a path
        return Check("agent", "fail", "what answers on its socket is no agent", "journalctl -u agent"), None
    return Check("agent", "ok", f"{agent['state']}, pid {agent['pid']}, version {agent['version']}"), agent


def check_users(declaration: Declaration, status: str) -> list[Check]:
    """One row that the agent can run all services as whom they are declared, or one for each that it cannot.

    ``status`` is the text of the agent's /proc/PID/status (proc(5)).
    """
    own = int(_field(status, "Uid:", "0 0").split()[1]), int(_field(status, "Gid:", "0 0").split()[1])
    becomes = {"CAP_SETUID", "CAP_SETGID"} <= set(names(parse_sets(status).effective))
    wanted = [(f"service.{name}", service.user, service.group) for name, service in declaration.services.items()]
    wanted.append(("agent", None, declaration.agent.group))
    failures = []
    for where, user, group in wanted:
        try:
            found = resolve_user(user, group)
        except SpawnFailed as error:
            finding, _, mend = str(error).partition("; ")
            failures.append(Check("users", "fail", f"{where}: {finding}", mend))
            continue
        if where != "agent" and (user or group) and not becomes and (found.uid, found.gid) != own:
            finding = f"{where}: the agent is not permitted to run it as {user or f'group {group}'}"
            failures.append(Check("users", "fail", finding, PRIVILEGED))
    return failures or [Check("users", "ok", "all users and groups of the declaration exist")]


def check_prefix(paths: Paths, user: Credentials | None = None) -> Check:
    """Whether ``user``, by default this one, may write where the agent writes."""
    places = [paths.run, paths.tmp, paths.spool, paths.logs]
    with seen_by(user):
        for place in [_nearest(directory) for directory in places]:
            if os.statvfs(place).f_flag & os.ST_RDONLY:
                return Check("prefix", "fail", f"{place} is on a file system that is mounted read-only", "remount it")
            if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK, effective_ids=True)):
                mend = "run the agent as the owner of the prefix, or give the directory to the user it runs as"
                finding = f"{place} is no directory that user {resolve_user(None, None).name} may write to"
                return Check("prefix", "fail", finding, mend)
    missing = [place.name for place in places if not place.exists()]
    note = f"; {', '.join(missing)} will be created" if missing else ""
    return Check("prefix", "ok", f"{paths.prefix} is writable{f' for user {user.name}' if user else ''}{note}")


def check_disks(places: list[Path]) -> list[Check]:
    """A row for each file system that these places are on."""
    there = {place.stat().st_dev: place for place in reversed([_nearest(place) for place in places])}
    return [check_disk(place, os.statvfs(place)) for place in reversed(there.values())]


def check_disk(place: Path, figures: os.statvfs_result) -> Check:
    """Whether there is room, in bytes and in inodes, by what statvfs(3) says of ``place``."""
    free = figures.f_bavail / figures.f_blocks if figures.f_blocks else 1.0
    inodes = figures.f_favail / figures.f_files if figures.f_files else 1.0
    finding = f"{size(figures.f_bavail * figures.f_frsize)} ({free:.0%}) and {inodes:.0%} of the inodes free at {place}"
    least = min(free, inodes)
    verdict: Verdict = "fail" if least < LEAST_DISK else "warn" if least < LITTLE_DISK else "ok"
    return Check("disk", verdict, finding, "" if verdict == "ok" else "free some, or lower `budget` of the captures")


def check_budgets(declaration: Declaration, paths: Paths) -> list[Check]:
    """A row for each file system that captures store packets on: whether their budgets fit on it at all."""
    captures = [service for service in declaration.services.values() if isinstance(service, Capture)]
    by_disk: dict[int, list[Capture]] = {}
    for service in captures:
        by_disk.setdefault(_nearest(paths.data(service.name)).stat().st_dev, []).append(service)
    return [check_budget(together, _nearest(paths.data(together[0].name))) for together in by_disk.values()]


def check_budget(captures: list[Capture], place: Path, figures: os.statvfs_result | None = None) -> Check:
    """Whether the budgets of captures fit on the file system at ``place``, beside what is to stay free."""
    disk = figures or os.statvfs(place)
    total = disk.f_blocks * disk.f_frsize
    reserve = max(max(one.min_free.bytes, int(total * one.min_free.share)) for one in captures)
    most = max(0, total - reserve)
    budget = sum(one.budget for one in captures)
    names = some(sorted(one.name for one in captures))
    told = f"{names}: {size(budget)} of the {size(total)} of the file system at {place}, {size(reserve)} stay free"
    if budget <= most:
        return Check("budget", "ok", told)
    return Check(
        "budget", "warn", told, f"budgets of at most {size(most)} together: old packets go earlier than declared"
    )


def check_libpcap(*, needed: bool) -> Check:
    """Whether the capture library can be loaded, and which it is."""
    if found := libpcap.load():
        version = found[1].pcap_lib_version
        version.restype = ctypes.c_char_p
        return Check("libpcap", "ok", version().decode("ascii", "replace"))
    return Check("libpcap", "fail" if needed else "warn", "cannot be loaded: no capture", "apt install libpcap0.8")


def check_nmap(*, needed: bool) -> Check:
    """Whether nmap can be run, and which it is."""
    try:
        done = run(SpawnRequest(argv=["nmap", "--version"], environment=base_environment(os.environ)), COMMAND_TIMEOUT)
        finding = done.stdout.decode("utf-8", "replace").partition("\n")[0]
    except SpawnFailed as error:
        finding = str(error)
    if finding.startswith("Nmap version"):
        return Check("nmap", "ok", finding)
    return Check("nmap", "fail" if needed else "warn", f"{finding or 'says nothing'}: no scan", "apt install nmap")


def check_raw_sockets(status: str, *, needed: bool) -> Check:
    """Whether CAP_NET_RAW is effective, by the text of /proc/PID/status (proc(5))."""
    if parse_sets(status).effective & mask([NET_RAW]):
        return Check("capabilities", "ok", "CAP_NET_RAW is effective")
    return Check(
        "capabilities",
        "fail" if needed else "warn",
        "CAP_NET_RAW is not effective: no capture, and scans connect instead of probing",
        "run the agent as root, or with AmbientCapabilities=CAP_NET_RAW in its unit",
    )


def check_capabilities(declaration: Declaration, status: str) -> list[Check]:
    """One row if the agent holds every capability that commands are to have, or one for each command that it fails.

    No row where none is declared. ``status`` is the text of the agent's /proc/PID/status (proc(5)).
    """
    services = [service for service in declaration.services.values() if isinstance(service, Command)]
    declared = {service.name: service.capabilities for service in services if service.capabilities}
    held = parse_sets(status).permitted
    failures = []
    for name, wanted in declared.items():
        if missing := names(mask(wanted) & ~held):
            finding = f"service.{name}: the agent does not hold {' '.join(missing)}"
            mend = f"{in_a_drop_in(missing)} in a drop-in of its unit, or run the agent as root"
            failures.append(Check("capabilities", "fail", finding, mend))
    if failures or not declared:
        return failures
    return [Check("capabilities", "ok", "the agent holds all that the declaration gives to commands")]


def check_files(limits: str, *, services: int) -> Check:
    """Whether the limit on open files, by the text of /proc/PID/limits (proc(5)), is enough for the declaration."""
    words = _field(limits, "Max open files", "0 0").split()
    allowed = words[1]  # the hard limit: the agent raises the soft one to it
    wanted = FILES_OF_AGENT + FILES_PER_SERVICE * services
    if allowed == "unlimited" or int(allowed) >= wanted:
        return Check("open files", "ok", f"{allowed} allowed, at most {wanted} needed")
    mend = f"LimitNOFILE={wanted} in the unit, or ulimit -n {wanted}"
    return Check("open files", "warn", f"{allowed} allowed, up to {wanted} needed", mend)


def check_cgroup(in_force: str | None, found: str) -> Check:
    """Whether services are contained by cgroups: what the running agent says, else what ``cgroup.explain`` found."""
    if in_force == "cgroup" or (in_force is None and found.startswith("cgroup v2 at ")):
        return Check("cgroup", "ok", "the agent uses cgroup v2" if in_force else found)
    finding = f"{found}: limits are not in force, and strays are found by a sweep"
    return Check("cgroup", "warn", finding, "run the agent by its unit, or as root where no systemd runs")


def check_limits(declaration: Declaration, events: Iterable[Mapping[str, Any]]) -> list[Check]:
    """A row for each reason why limits of services do not hold, by what the agent has told since it started."""
    limited = {name for name, service in declaration.services.items() if service.limits.declared}
    told = {event.get("service"): event["message"] for event in events if event.get("kind") == "limits_not_in_force"}
    mend = "Delegate=cpu memory pids in the unit, on a host whose only control groups are version 2"
    rows = []
    for why in sorted({why for name, why in told.items() if name in limited}):
        names = sorted(name for name in limited if told.get(name) == why)
        rows.append(Check("limits", "warn", f"not in force for {', '.join(names)}: {why}", mend))
    return rows


def check_timers(declaration: Declaration, paths: Paths, root: Path = HERE) -> list[Check]:
    """Whether systemd starts the jobs that it is to start: their timers are as declared, and active.

    No row where there is no such job, and nothing left of any.
    """
    astray = out_of_sync(declaration, paths, root)
    jobs = sorted(render(declaration, paths.prefix))
    if not (jobs or astray):
        return []
    if jobs and not systemd.booted():
        finding = f"systemd, which is to start {some(jobs)}, does not run this machine"
        return [Check("timers", "warn", finding, 'scheduler = "agent" in the declaration')]
    try:
        idle = [name for name, state in timer_state.ask(jobs).items() if not state.active and name not in astray]
    except RuntimeFailure as error:
        return [Check("timers", "warn", str(error), "systemctl list-timers")]
    told = [("not as declared", astray), ("not active, so that nobody starts them", idle)]
    findings = [f"{what}: {some(names)}" for what, names in told if names]
    if findings:
        mend = "agentctl timers sync" if systemd.booted() else "agentctl timers sync --root /"
        return [Check("timers", "warn", "; ".join(findings), mend)]
    return [Check("timers", "ok", f"{_counted(len(jobs), 'timer')} of systemd as declared, and active")]


def check_clock(marker: Path = TIMESYNC) -> Check:
    """Whether the clock is kept in step with the world's: time stamps and calendars rest on it."""
    if marker.exists():
        return Check("clock", "ok", "synchronised by systemd-timesyncd")
    argv = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = run(SpawnRequest(argv=argv, environment=base_environment(os.environ)), COMMAND_TIMEOUT)
        answer = done.stdout.strip()
    except SpawnFailed:
        answer = b""
    if answer == b"yes":
        return Check("clock", "ok", "synchronised")
    finding = "not synchronised" if answer == b"no" else "neither systemd-timesyncd nor timedatectl tells"
    return Check("clock", "warn", finding, "timedatectl set-ntp true, or install chrony")


def _events_since(paths: Paths, begun: float) -> list[dict[str, Any]]:
    try:
        return [event for event in Client(paths.socket).stream("/v1/events", EVENTS) if event.get("time", 0) >= begun]
    except AgentError:  # it has gone meanwhile
        return []


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _missing(path: Path) -> bool:
    """Whether it is not there, as far as this user can tell."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _nearest(path: Path) -> Path:
    """``path``, or the first directory above it that exists and can be reached."""
    while not os.access(path, os.F_OK, effective_ids=True) and path != path.parent:
        path = path.parent
    return path


def status_of(pid: int | None) -> str:
    """The text of /proc/PID/status (proc(5)) of the agent, or of this process."""
    return _proc(pid, "status")


def _limits(pid: int | None) -> str:
    return _proc(pid, "limits")


def given_to(pid: int | None) -> Path | None:
    """The credentials of the agent, or of this process: what is not in ``key`` may be there."""
    prefix = "CREDENTIALS_DIRECTORY="
    given = next((entry for entry in _proc(pid, "environ").split("\0") if entry.startswith(prefix)), prefix)
    return Path(given.removeprefix(prefix)) if given != prefix else None


def _proc(pid: int | None, name: str) -> str:
    """A file of the agent in /proc, or of this process when there is none (or none any more)."""
    for who in ([str(pid)] if pid else []) + ["self"]:
        try:
            return Path("/proc", who, name).read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
    return ""


def _field(text: str, name: str, default: str) -> str:
    """What follows ``name`` on the line that begins with it."""
    for line in text.splitlines():
        if line.startswith(name):
            return line[len(name) :].strip()
    return default
