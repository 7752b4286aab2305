"""The checks of ``doctor``: each tells a good host from a bad one, and how to mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import agent.linux.systemd
from agent.cli import checks
from agent.declaration.model import AgentSettings, Capture, Command, Declaration, Limits, Reserve
from agent.installation import timer_state
from agent.installation.timer_state import JobState
from agent.installation.timer_sync import sync
from agent.installation.timers import render
from agent.linux import libpcap
from agent.linux.files import PrefixLock
from agent.paths import Paths
from tests.installation.conftest import PATHS, declared, install, job
from tests.linux.processes import BECOME_NOBODY, scripted

ROOT = "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0 \nCapPrm:\t1ff\nCapEff:\t000001ffffffffff\n"
NOBODY = (
    "Uid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\nGroups:\t65534 \nCapEff:\t0000000000002000\n"
)


def program(directory: Path, name: str, output: str) -> None:
    """Put a program that prints ``output`` into ``directory``."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


def capture(name: str, budget: int, **reserve: float) -> Capture:
    return Capture(name=name, interfaces=("lo",), budget=budget, min_free=Reserve(**reserve))  # type: ignore[arg-type]  # bytes or share


@pytest.mark.parametrize(
    ("captures", "verdict", "mend"),
    [
        ([capture("edge", 4_096_000 // 2)], "ok", ""),
        ([capture("edge", 4_096_000)], "ok", ""),
        ([capture("edge", 4_096_001)], "warn", "budgets of at most 3.91 MiB together"),
        ([capture("edge", 3_000_000, share=0.5)], "warn", "budgets of at most 1.95 MiB together"),
        ([capture("edge", 3_000_000, bytes=2_048_000)], "warn", "budgets of at most 1.95 MiB together"),
        ([capture("a", 2_100_000), capture("b", 2_100_000)], "warn", "budgets of at most 3.91 MiB together"),
        ([capture("edge", 1, bytes=10**9)], "warn", "budgets of at most 0 B together"),
    ],
)
def test_budgets_must_fit_on_the_disk(captures: list[Capture], verdict: str, mend: str) -> None:
    check = checks.check_budget(captures, Path("/srv"), statvfs(900, 900))
    assert (check.name, check.verdict) == ("budget", verdict)
    assert check.mend.startswith(mend)
    assert check.finding.startswith(", ".join(one.name for one in captures) + ": ")


def test_raw_sockets_are_read_from_the_effective_capabilities() -> None:
    good = checks.check_raw_sockets("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000002000\n", needed=True)
    assert (good.verdict, good.mend) == ("ok", "")
    for text in ("CapPrm:\t2000\nCapEff:\t000001ffffffdfff\n", ""):
        bad = checks.check_raw_sockets(text, needed=True)
        assert bad.verdict == "fail" and "CAP_NET_RAW" in bad.mend
        assert checks.check_raw_sockets(text, needed=False).verdict == "warn"


def test_each_command_that_is_to_have_what_the_agent_has_not_is_a_row() -> None:
    services = {
        "web": Command(name="web", command=("true",), capabilities=("CAP_NET_BIND_SERVICE", "CAP_NET_RAW")),
        "time": Command(name="time", command=("true",), capabilities=("CAP_SYS_TIME",)),
        "none": Command(name="none", command=("true",), capabilities=()),
        "plain": Command(name="plain", command=("true",)),
    }
    declaration = Declaration(agent=AgentSettings(server="here"), services=dict(services))
    [web, time] = checks.check_capabilities(declaration, "CapPrm:\t0000000000002000\nCapEff:\t000001ffffffffff\n")
    assert (web.verdict, web.finding) == ("fail", "service.web: the agent does not hold CAP_NET_BIND_SERVICE")
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in web.mend
    assert time.finding == "service.time: the agent does not hold CAP_SYS_TIME"
    [good] = checks.check_capabilities(declaration, "CapPrm:\t000001ffffffffff\n")
    assert (good.verdict, good.mend) == ("ok", "")
    declaration = Declaration(agent=AgentSettings(server="here"), services={"plain": services["plain"]})
    assert checks.check_capabilities(declaration, "") == []


@pytest.mark.parametrize(
    ("hard", "services", "verdict"),
    [("524288", 500, "ok"), ("unlimited", 500, "ok"), ("256", 10, "ok"), ("256", 500, "warn")],
)
def test_the_hard_limit_of_open_files_is_held_against_the_number_of_services(
    hard: str, services: int, verdict: str
) -> None:
    limits = f"Max processes  63000  63000  processes\nMax open files            64      {hard}      files\n"
    check = checks.check_files(limits, services=services)
    assert check.verdict == verdict
    assert bool(check.mend) == (verdict != "ok")


def test_the_limits_of_a_real_process_can_be_read() -> None:
    assert checks.check_files(Path("/proc/self/limits").read_text(), services=1).finding[0].isdigit()


@pytest.mark.parametrize(
    ("in_force", "found", "verdict"),
    [
        ("cgroup", "no cgroup v2 is mounted", "ok"),
        ("sweep", "cgroup v2 at /sys/fs/cgroup", "warn"),
        (None, "cgroup v2 at /sys/fs/cgroup", "ok"),
        (None, "no cgroup v2 is mounted", "warn"),
    ],
)
def test_what_a_running_agent_says_of_cgroups_outranks_what_this_process_sees(
    in_force: str | None, found: str, verdict: str
) -> None:
    assert checks.check_cgroup(in_force, found).verdict == verdict


def statvfs(free: int, inodes: int) -> os.statvfs_result:
    """A file system of 1,000 blocks of 4 KiB and 1,000 inodes."""
    return os.statvfs_result((4096, 4096, 1000, free, free, 1000, inodes, inodes, 0, 255))


@pytest.mark.parametrize(
    ("free", "inodes", "verdict"),
    [(500, 500, "ok"), (99, 500, "warn"), (500, 99, "warn"), (19, 500, "fail"), (500, 0, "fail")],
)
def test_the_disk_is_judged_by_what_is_scarcer(free: int, inodes: int, verdict: str) -> None:
    assert checks.check_disk(Path("/srv"), statvfs(free, inodes)).verdict == verdict


def test_a_file_system_without_inodes_of_its_own_is_judged_by_bytes() -> None:
    figures = os.statvfs_result((4096, 4096, 1000, 500, 500, 0, 0, 0, 0, 255))
    assert checks.check_disk(Path("/srv"), figures).verdict == "ok"


def test_the_prefix_need_not_exist_where_it_can_be_made(prefix: Path) -> None:
    check = checks.check_prefix(Paths.of(prefix))
    assert check.verdict == "ok" and "run, tmp, spool, log will be created" in check.finding
    assert not prefix.exists()


def test_what_is_in_the_way_of_the_prefix_is_named(prefix: Path) -> None:
    prefix.mkdir()
    (prefix / "spool").touch()
    check = checks.check_prefix(Paths.of(prefix))
    assert check.verdict == "fail" and str(prefix / "spool") in check.finding and check.mend


def test_a_declaration_that_only_the_agent_was_given_is_found(prefix: Path, tmp_path: Path) -> None:
    paths = Paths.of(prefix)
    missing, _ = checks.check_declaration(paths, {})
    assert (missing.verdict, missing.mend) == ("fail", f"agentctl --prefix {prefix} init")
    (tmp_path / "env.toml").write_text('[service.a]\nkind = "command"\ncommand = ["/bin/true"]\nsecrets = ["token"]\n')
    (tmp_path / "token").touch(mode=0o440)
    found, declaration = checks.check_declaration(paths._replace(credentials=tmp_path), {})
    assert (found.verdict, found.finding) == ("ok", f"{tmp_path}/env.toml: 1 service")
    assert declaration is not None


def test_what_a_running_agent_was_given_is_looked_for_in_its_environment(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own, and not that of whoever asks."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    program = "print(flush=True); input()"
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PATH": "/bin"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout and agent.stdout.readline() == b"\n"
        assert checks.given_to(agent.pid) == tmp_path
        agent.communicate(b"\n")
    assert checks.given_to(None) is None


def test_users_and_groups_that_do_not_exist_are_each_a_row() -> None:
    services = {
        "api": Command(name="api", command=("true",), user="nobody_of_that_name"),
        "web": Command(name="web", command=("true",), group="no_such_group"),
        "fine": Command(name="fine", command=("true",), user="root", group="root"),
    }
    declaration = Declaration(agent=AgentSettings(server="here", group="no_readers"), services=dict(services))
    found = checks.check_users(declaration, ROOT)
    assert [check.verdict for check in found] == ["fail", "fail", "fail"]
    assert [check.finding.partition(":")[0] for check in found] == ["service.api", "service.web", "agent"]
    assert all(check.mend for check in found)
    right = Declaration(agent=AgentSettings(server="here"), services={"fine": services["fine"]})
    assert [check.verdict for check in checks.check_users(right, ROOT)] == ["ok"]


def test_who_may_not_become_another_user_is_told_what_would_permit_it() -> None:
    services = {
        "api": Command(name="api", command=("true",), user="daemon"),
        "web": Command(name="web", command=("true",), group="daemon"),
        "own": Command(name="own", command=("true",), user="nobody"),
        "fine": Command(name="fine", command=("true",)),
    }
    declaration = Declaration(agent=AgentSettings(server="here", group="daemon"), services=dict(services))
    api, web = checks.check_users(declaration, NOBODY)
    assert (api.verdict, api.finding) == ("fail", "service.api: the agent is not permitted to run it as daemon")
    assert web.finding == "service.web: the agent is not permitted to run it as group daemon"
    assert "privileged.conf" in api.mend
    privileged = NOBODY.replace("2000", "20c0")
    for status in (ROOT, privileged):
        assert [check.verdict for check in checks.check_users(declaration, status)] == ["ok"]


def test_root_looks_with_the_eyes_of_the_agents_user(theirs: Path) -> None:
    """Who it is is told by its process, or by whom the prefix belongs to."""
    paths = Paths.of(theirs)
    running, owning = checks.whose(paths, NOBODY), checks.whose(paths, "")
    assert running is not None and owning is not None
    assert (
        (running.uid, running.gid, running.groups)
        == (owning.uid, owning.gid, owning.groups)
        == (65534, 65534, (65534,))
    )
    assert checks.whose(paths, ROOT) is None
    assert checks.whose(paths, NOBODY.replace("2000", "2002")) is None, "CAP_DAC_OVERRIDE opens it all"
    found, declaration = checks.check_declaration(paths, {}, running)
    assert declaration is not None
    assert found.verdict == "fail"
    assert found.finding.startswith(
        f"1 problem, the first: {paths.declaration}: may not be read by user nobody: chgrp "
    )
    assert checks.check_declaration(paths, {})[0].verdict == "ok"
    paths.declaration.chmod(0o644)
    assert checks.check_declaration(paths, {}, running)[0].verdict == "ok"
    assert (
        checks.check_prefix(paths, running).finding == f"{theirs} is writable for user nobody; tmp, log will be created"
    )
    os.chown(paths.spool, 0, 0)
    refused = checks.check_prefix(paths, running)
    assert refused.verdict == "fail"
    assert refused.finding == f"{paths.spool} is no directory that user nobody may write to"


def test_an_ordinary_user_learns_what_is_closed_to_him(tmp_path: Path) -> None:
    """And meets no traceback on the way."""
    prefix = Path(tempfile.mkdtemp(prefix="closed-"))
    (prefix / "key").mkdir(mode=0o700)
    for mode, told in ((0o755, f"who may not enter {prefix}/key"), (0o700, f"who may not enter {prefix}")):
        prefix.chmod(mode)
        script = (
            "from pathlib import Path\nfrom agent.cli import checks\nfrom agent.paths import Paths\n"
            f"{BECOME_NOBODY}\n"
            f"paths = Paths.of({str(prefix)!r})\n"
            "print(checks.check_declaration(paths, {})[0].finding)\n"
            "print(checks.check_prefix(paths).verdict, len(checks.check_disks([paths.prefix, paths.spool])))\n"
        )
        first, second = scripted(script).splitlines()
        assert told in first
        assert second == "fail 1"
    shutil.rmtree(prefix)


def examined_by_nobody(prefix: Path) -> dict[str, checks.Check]:
    script = (
        "from agent.cli import checks\nfrom agent.paths import Paths\n"
        f"checks.examine(Paths.of({str(prefix)!r}), {{}})\n"  # imports all that only root may
        f"{BECOME_NOBODY}\n"
        f"print(*checks.examine(Paths.of({str(prefix)!r}), {{}}), sep='\\n')\n"
    )
    rows = [eval(line, {"Check": checks.Check}) for line in scripted(script).splitlines()]
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def test_what_a_stranger_may_not_do_says_nothing_about_the_agent(theirs: Path) -> None:
    for place in (theirs / "run", theirs / "spool"):
        os.chown(place, 1, 1)
    rows = examined_by_nobody(theirs)
    assert "fail" not in {row.verdict for row in rows.values()}
    for name in ("prefix", "capabilities", "open files", "cgroup"):
        assert rows[name] == checks.Check(name, "warn", "cannot be judged by user nobody", "do it as root (sudo)")
    declaration = theirs / "key" / "env.toml"
    told = f"{declaration}: may not be read by user nobody"
    assert rows["declaration"] == checks.Check("declaration", "warn", told, "do it as root (sudo)")
    declaration.chmod(0o644)
    declaration.write_text("[service.web]\nkind = 'comand'\n")
    assert examined_by_nobody(theirs)["declaration"].verdict == "fail", "mistakes are mistakes"


def test_whose_it_is_judges_all_of_it(theirs: Path) -> None:
    assert "cannot be judged" not in str(examined_by_nobody(theirs))


def test_only_of_an_agent_that_was_looked_at_there_is_something_to_say() -> None:
    rows = [checks.Check(name, "ok", "fine") for name in ("prefix", "cgroup", "disk", "prefix")]
    seen = checks.unjudged(rows, agent_seen=True)
    assert [(row.name, row.verdict) for row in seen] == [("prefix", "warn"), ("cgroup", "ok"), ("disk", "ok")]


def test_a_running_agent_is_found_by_the_lock_that_it_holds(prefix: Path) -> None:
    paths = Paths.of(prefix)
    assert checks.running(paths) is None
    paths.run.mkdir(parents=True)
    lock = PrefixLock(paths.agent_lock)
    lock.acquire()
    assert checks.running(paths) is None
    paths.agent_pid.write_text(f"{os.getpid()}\n")
    assert checks.running(paths) == os.getpid()
    lock.release()
    assert checks.running(paths) is None, "what an agent left that was killed"


def test_each_disk_is_a_row(tmp_path: Path) -> None:
    assert [check.name for check in checks.check_disks([tmp_path, tmp_path / "none", Path("/proc")])] == ["disk"] * 2
    assert checks.check_disks([tmp_path / "none"])[0].finding.endswith(f" free at {tmp_path}")


def test_limits_that_do_not_hold_are_told_while_they_are_declared() -> None:
    limits = Limits(memory=1)
    services = {name: Command(name=name, command=("true",), limits=limits) for name in ("a", "b", "c")}
    services["none"] = Command(name="none", command=("true",))
    declaration = Declaration(agent=AgentSettings(server="here"), services=dict(services))
    events = [
        {"kind": "limits_not_in_force", "service": name, "message": "the cgroup has no controller for: memory"}
        for name in ("b", "a", "none", "gone")
    ]
    [row] = checks.check_limits(declaration, [*events, {"kind": "ready", "service": "c", "message": ""}, {"gap": True}])
    assert (row.verdict, row.finding) == (
        "warn",
        "not in force for a, b: the cgroup has no controller for: memory",
    )
    assert checks.check_limits(declaration, []) == []


TIMERS = render(declared(job("quiet"), job("nightly")), PATHS.prefix)


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A systemd that says of these timers that they are active."""
    active = set(TIMERS)

    def ask(names: Sequence[str]) -> dict[str, JobState]:
        return {name: JobState("waiting", None, None, None, active=name in active) for name in names}

    monkeypatch.setattr(timer_state, "ask", ask)
    monkeypatch.setattr(agent.linux.systemd, "booted", lambda: True)
    return active


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Where units lie, and none of ours."""
    install(tmp_path / "host")
    return tmp_path / "host"


def timers(root: Path, *jobs: str, scheduler: str = "systemd") -> list[tuple[str, str, str]]:
    rows = checks.check_timers(declared(*(job(name) for name in jobs), scheduler=scheduler), PATHS, root)
    return [(row.verdict, row.finding, row.mend) for row in rows]


def test_jobs_that_systemd_does_not_start_yet_or_any_more_are_told(host: Path, systemd: set[str]) -> None:
    mend = "agentctl timers sync"
    assert timers(host, "quiet", "nightly") == [("warn", "not as declared: nightly, quiet", mend)]
    sync(declared(job("quiet"), job("nightly")), PATHS, host)
    assert timers(host, "quiet", "nightly") == [("ok", "2 timers of systemd as declared, and active", "")]
    systemd.discard("quiet")
    idle = "not active, so that nobody starts them: quiet"
    assert timers(host, "quiet", "nightly") == [("warn", idle, mend)]
    assert timers(host, "quiet") == [("warn", f"not as declared: nightly; {idle}", mend)]
    # They would be started twice: by the agent too.
    assert timers(host, "quiet", scheduler="agent") == [("warn", "not as declared: nightly, quiet", mend)]


def test_jobs_that_are_not_systemds_are_no_row(host: Path, systemd: set[str]) -> None:
    assert timers(host, "quiet", scheduler="agent") == timers(host) == []


def test_without_systemd_nobody_starts_its_jobs(host: Path, systemd: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.linux.systemd, "booted", lambda: False)
    [(verdict, finding, _)] = timers(host, "quiet")
    assert (verdict, finding) == ("warn", "systemd, which is to start quiet, does not run this machine")


def test_libpcap_says_its_version() -> None:
    check = checks.check_libpcap(needed=True)
    assert check.verdict == "ok" and "libpcap version" in check.finding


def test_a_missing_libpcap_fails_only_where_something_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libpcap, "NAMES", ("libpcap.so.nowhere",))
    assert checks.check_libpcap(needed=True).verdict == "fail"
    check = checks.check_libpcap(needed=False)
    assert check.verdict == "warn" and "libpcap0.8" in check.mend


def test_nmap_says_its_version() -> None:
    check = checks.check_nmap(needed=True)
    assert check.verdict == "ok" and check.finding.startswith("Nmap version ")


def test_a_missing_nmap_fails_only_where_something_scans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks.check_nmap(needed=True).verdict == "fail"
    check = checks.check_nmap(needed=False)
    assert check.verdict == "warn" and "apt install nmap" in check.mend


def test_something_else_called_nmap_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin", "nmap", "Not A Map 1.0")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    check = checks.check_nmap(needed=True)
    assert check.verdict == "fail" and "Not A Map" in check.finding


@pytest.mark.parametrize(("answer", "verdict"), [("yes", "ok"), ("no", "warn"), ("", "warn")])
def test_without_timesyncd_timedatectl_is_asked(
    answer: str, verdict: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "bin", "timedatectl", answer)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert checks.check_clock(tmp_path / "none").verdict == verdict


def test_timesyncd_leaves_a_mark(tmp_path: Path) -> None:
    assert checks.check_clock(tmp_path).verdict == "ok"


def test_a_host_without_timedatectl_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks.check_clock(tmp_path / "none").verdict == "warn"
