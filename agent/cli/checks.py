"""The checks of ``agentctl doctor``. Each looks, changes nothing, and comes back with a verdict and a way to mend."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agent.cli.text import size
from agent.control.client import Client
from agent.declaration.load import load
from agent.declaration.model import Command, Declaration
from agent.errors import AgentError, DeclarationError, SpawnFailed
from agent.linux import cgroup, libpcap
from agent.linux.capability_sets import NET_RAW, in_a_drop_in, mask, names, parse_sets
from agent.linux.environment import base_environment
from agent.linux.spawn import SpawnRequest, run
from agent.linux.users import resolve_user
from agent.paths import Paths

Verdict = Literal["ok", "warn", "fail"]

LEAST_DISK = 0.02
LITTLE_DISK = 0.10
"""Free parts of the file system: below the first nothing can be relied on, below the second it is time to act."""

FILES_OF_AGENT, FILES_PER_SERVICE = 64, 4
"""File descriptors that the agent holds for itself, and for each service (pidfd, log pipe, log file, notify socket)."""

TIMESYNC = Path("/run/systemd/timesync/synchronized")
"""Exists once systemd-timesyncd has set the clock (systemd-timesyncd.service(8))."""

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
    answering, agent = check_agent(paths)
    pid = agent["pid"] if agent else None
    declared, declaration = check_declaration(paths._replace(credentials=given_to(pid)), environ)
    kinds = {service.kind for service in declaration.services.values()} if declaration else {"capture", "scan"}
    return [
        declared,
        answering,
        *(check_users(declaration) if declaration else ()),
        check_prefix(paths),
        check_disk(_nearest(paths.prefix), os.statvfs(_nearest(paths.prefix))),
        check_libpcap(needed="capture" in kinds),
        check_nmap(needed="scan" in kinds),
        check_raw_sockets(_status(pid), needed="capture" in kinds),
        *(check_capabilities(declaration, _status(pid)) if declaration else ()),
        check_files(_limits(pid), services=len(declaration.services) if declaration else 0),
        check_cgroup(agent["containment"] if agent else None, cgroup.explain(paths.prefix)),
        check_clock(),
    ]


def check_declaration(paths: Paths, environ: Mapping[str, str]) -> tuple[Check, Declaration | None]:
    """Whether the declaration is there and right; and what it says, if so."""
    if not paths.declaration.exists() and paths.credential(paths.declaration.name) is None:
        return Check("declaration", "fail", f"{paths.declaration} does not exist", "agentctl init"), None
    try:
        declaration = load(paths, environ)
    except DeclarationError as error:
        count = len(error.problems)
        finding = f"{count} problem{'' if count == 1 else 's'}, the first: {error.problems[0]}"
        return Check("declaration", "fail", finding, "agentctl validate shows all of them"), None
    return Check("declaration", "ok", f"{declaration.file}: {len(declaration.services)} services"), declaration


def check_agent(paths: Paths) -> tuple[Check, dict[str, Any] | None]:
    """Whether an agent answers on this prefix; and what it says of itself, if so."""
    try:
        agent: dict[str, Any] = Client(paths.socket).request("GET", "/v1/status")["agent"]
    except AgentError as error:
        return Check("agent", "warn", str(error), "systemctl start agent, or agentctl run"), None
    return Check("agent", "ok", f"{agent['state']}, pid {agent['pid']}, version {agent['version']}"), agent


def check_users(declaration: Declaration) -> list[Check]:
    """One row that all users and groups of the declaration exist, or one for each that does not."""
    wanted = [(f"service.{name}", service.user, service.group) for name, service in declaration.services.items()]
    wanted.append(("agent", None, declaration.agent.group))
    failures = []
    for where, user, group in wanted:
        try:
            resolve_user(user, group)
        except SpawnFailed as error:
            finding, _, mend = str(error).partition("; ")
            failures.append(Check("users", "fail", f"{where}: {finding}", mend))
    return failures or [Check("users", "ok", "all users and groups of the declaration exist")]


def check_prefix(paths: Paths) -> Check:
    """Whether this user may write where the agent writes."""
    places = [paths.run, paths.tmp, paths.spool, paths.logs]
    for place in [_nearest(directory) for directory in places]:
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            mend = "run the agent as the owner of the prefix, or give the directory to the user it runs as"
            return Check("prefix", "fail", f"{place} is no directory that this user may write to", mend)
    missing = [place.name for place in places if not place.exists()]
    note = f"; {', '.join(missing)} will be created" if missing else ""
    return Check("prefix", "ok", f"{paths.prefix} is writable{note}")


def check_disk(place: Path, figures: os.statvfs_result) -> Check:
    """Whether there is room, in bytes and in inodes, by what statvfs(3) says of ``place``."""
    free = figures.f_bavail / figures.f_blocks if figures.f_blocks else 1.0
    inodes = figures.f_favail / figures.f_files if figures.f_files else 1.0
    finding = f"{size(figures.f_bavail * figures.f_frsize)} ({free:.0%}) and {inodes:.0%} of the inodes free at {place}"
    least = min(free, inodes)
    verdict: Verdict = "fail" if least < LEAST_DISK else "warn" if least < LITTLE_DISK else "ok"
    return Check("disk", verdict, finding, "" if verdict == "ok" else "free some, or lower `budget` of the captures")


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


def _nearest(path: Path) -> Path:
    """``path``, or the first directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _status(pid: int | None) -> str:
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
