"""The life of ``agent.service`` under a real systemd: starts, stops, reloads, and what happens when something dies."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agent.control.patience import STEP
from tests.harness import wait_until
from tests.system.container import PATIENCE
from tests.system.host import UNIT, Host

WEB = """
[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]
"""

# Gets ready when somebody makes the file `gate`, and says so as any program that knows sd_notify does.
GATED = """
import os, pathlib, signal, socket, time
while not pathlib.Path("/opt/tests/gate").exists():
    time.sleep(0.02)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
    speaker.connect(os.environ["NOTIFY_SOCKET"])
    speaker.send(b"READY=1")
signal.pause()
"""

# Leaves its session, its process group and its parent behind, as a daemon does that nobody is to find.
STRAY = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/usr/bin/sleep", ["sleep", "7654"])
    os._exit(0)
time.sleep(8765)
"""


# Says to systemd what only the agent may say, and gets ready when systemd has taken that in: sd_notify_barrier(3).
FORGER = """
import os, signal, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
    speaker.connect("/run/systemd/notify")
    speaker.send(b"READY=1\\nSTATUS=forged")
    kept, given = os.pipe()
    socket.send_fds(speaker, [b"BARRIER=1"], [given])
    os.close(given)
    os.read(kept, 1)
    speaker.connect(os.environ["NOTIFY_SOCKET"])
    speaker.send(b"READY=1")
signal.pause()
"""

# Tells each signal that it gets, and ends after SIGINT.
LISTENER = """
import os, signal, socket
told, watched = [], {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, watched)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
    speaker.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while signal.SIGINT not in told or signal.sigpending():
    told.append(signal.sigwait(watched))
    print(told[-1].name, flush=True)
"""


def gated(host: Host, **keys: str) -> str:
    """A declaration of the service above."""
    more = "".join(f"{name} = {value}\n" for name, value in keys.items())
    program = host.program("gated", GATED)
    return f'[service.slow]\nkind = "command"\ncommand = ["{program}"]\nready = "notify"\n{more}'


def replaced(host: Host, name: str) -> dict[str, Any]:
    """Kill the worker of a service; the report of its successor, once that runs."""
    killed = host.service(name)["pid"]
    host.signal(killed, signal.SIGKILL)
    wait_until(lambda: host.service(name)["pid"] not in (killed, None))
    return host.until(name, state="running")


def masks(host: Host, pid: int) -> dict[str, int]:
    """The signals that a process blocks, ignores and catches."""
    status = host.path(f"/proc/{pid}/status").read_text()
    return {name: int(found, 16) for name, found in re.findall(r"^(Sig(?:Blk|Ign|Cgt)):\t(\w+)$", status, re.MULTILINE)}


def open_gate(host: Host) -> None:
    host.write("/opt/tests/gate", "")


# -- the unit ---------------------------------------------------------------------------------------------------------

UNDERSTOOD = {
    "Type": "notify",
    "NotifyAccess": "main",
    "User": "agent",
    "Restart": "on-failure",
    "RestartPreventExitStatus": "1",
    "RestartUSec": "2s",
    "StartLimitIntervalUSec": "0",
    "WatchdogUSec": "30s",
    "TimeoutStartUSec": "1min",
    "TimeoutStopUSec": "1min",
    "KillMode": "mixed",
    "FileDescriptorStoreMax": "4096",
    "Delegate": "yes",
    "DelegateControllers": "cpu memory pids",
    "OOMPolicy": "continue",
    "TasksMax": "8192",
    "LimitNOFILE": "65536",
    "LogRateLimitIntervalUSec": "0",
    "UMask": "0027",
}
"""What docs/systemd.md promises of the unit, as systemd spells it."""


def test_systemd_has_understood_every_setting_that_the_life_of_the_agent_hangs_on(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")  # before which there is no watchdog
    assert installed.show(UNIT, *UNDERSTOOD) == UNDERSTOOD


# -- starting ---------------------------------------------------------------------------------------------------------


def test_start_returns_when_every_service_is_ready_and_not_before(installed: Host) -> None:
    installed.declare(gated(installed) + WEB)
    starting = installed.popen(["systemctl", "start", UNIT])
    installed.wait_journal(lambda line: "started: pid" in line, "AGENT_SERVICE=slow")
    assert installed.show(UNIT, "ActiveState", "SubState") == {"ActiveState": "activating", "SubState": "start"}
    assert starting.poll() is None
    open_gate(installed)
    assert starting.wait(10) == 0
    assert installed.show(UNIT, "ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}
    assert [service["state"] for service in installed.status()["services"]] == ["running", "running"]


def test_a_start_that_goes_on_outlasts_the_timeout_of_the_unit(installed: Host) -> None:
    installed.drop_in("short", "[Service]\nTimeoutStartSec=1s\n")
    installed.declare(gated(installed))
    starting = installed.popen(["systemctl", "start", UNIT])
    installed.wait_journal(lambda line: "started: pid" in line, "AGENT_SERVICE=slow")
    time.sleep(2)  # twice what the unit allows
    assert starting.poll() is None
    open_gate(installed)
    assert starting.wait(10) == 0
    assert installed.show(UNIT, "NRestarts") == {"NRestarts": "0"}


def test_an_agent_that_hangs_while_it_starts_is_ended_by_the_timeout_of_the_unit(installed: Host) -> None:
    installed.drop_in("short", "[Service]\nTimeoutStartSec=1s\nWatchdogSec=0\nRestart=no\n")
    installed.declare(gated(installed))
    # It is stopped before it has said anything: at the first instant at which the unit has a process.
    starting = installed.popen(["systemctl", "start", UNIT])
    wait_until(lambda: installed.pid > 0)
    installed.signal(installed.pid, signal.SIGSTOP)
    assert starting.wait(30) == 1
    assert installed.show(UNIT, "Result") == {"Result": "timeout"}


def test_an_agent_that_hangs_after_it_has_asked_for_more_time_is_ended_when_that_is_over(installed: Host) -> None:
    installed.drop_in("short", "[Service]\nTimeoutStartSec=1s\nWatchdogSec=0\nRestart=no\n")
    installed.declare(gated(installed, start_timeout='"10m"'))
    starting = installed.popen(["systemctl", "start", UNIT])
    installed.wait_journal(lambda line: "started: pid" in line, "AGENT_SERVICE=slow")
    begun = time.monotonic()
    installed.signal(installed.pid, signal.SIGSTOP)
    assert starting.wait(PATIENCE) == 1
    assert 1 < time.monotonic() - begun < 3 * STEP + 5
    assert installed.show(UNIT, "Result") == {"Result": "timeout"}
    assert not [words for words in installed.processes().values() if "gated" in words[-1]]


# The first retry does not wait, so that the start lasts as long as two of them; the next one does not hold it.
@pytest.mark.parametrize(("restart", "tries", "state"), [("no", 1, "failed"), ("on-failure", 2, "backoff")])
def test_a_service_that_does_not_get_ready_holds_a_start_for_its_own_time_and_no_longer(
    installed: Host, restart: str, tries: int, state: str
) -> None:
    installed.drop_in("short", "[Service]\nTimeoutStartSec=1s\n")
    installed.declare(WEB + gated(installed, start_timeout='"2s"', restart=f'"{restart}"'))
    begun = time.monotonic()
    assert installed.systemctl("start").returncode == 0
    assert 2 * tries < time.monotonic() - begun < 2 * tries + 5
    assert installed.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    assert installed.service("web")["state"] == "running"
    events = installed.events()
    ready = [event["kind"] for event in events].index("agent_ready")
    assert events[ready]["message"].startswith(f"1 running, 1 {state}")
    assert [event["kind"] for event in events[:ready]].count("start_timeout") == tries
    assert events[ready - 1]["kind"] == state
    assert events[ready - 1]["message"].startswith("not ready within 2 s")


def test_only_the_agent_itself_can_say_that_it_is_ready(installed: Host) -> None:
    forger = installed.program("forger", FORGER)
    installed.declare(
        f'{gated(installed)}[service.forger]\nkind = "command"\ncommand = ["{forger}"]\nready = "notify"\n'
    )
    starting = installed.popen(["systemctl", "start", UNIT])
    installed.wait_journal(lambda line: "ready" in line, "AGENT_SERVICE=forger")
    found = installed.show(UNIT, "ActiveState", "StatusText")
    assert found["ActiveState"] == "activating"
    assert found["StatusText"] != "forged"
    assert starting.poll() is None
    open_gate(installed)
    assert starting.wait(10) == 0


def test_a_start_of_the_service_brings_its_socket_where_that_is_enabled(installed: Host) -> None:
    def socket() -> str:
        return installed.show("agent.socket", "ActiveState")["ActiveState"]

    installed.declare(WEB)
    installed.systemctl("start")
    assert socket() == "inactive", "nobody has enabled it"
    installed.run(["systemctl", "enable", "--quiet", "agent.socket"])
    assert installed.run(["systemctl", "start", "agent.socket"], check=False).returncode == 1
    installed.systemctl("restart")
    assert socket() == "active"
    installed.run(["systemctl", "stop", "agent.socket", UNIT])
    installed.systemctl("start")
    assert socket() == "active"
    assert installed.status()["agent"]["state"] == "running"
    installed.run(["systemctl", "disable", "--quiet", "--now", "agent.socket"])
    installed.systemctl("restart")
    assert (socket(), installed.status()["agent"]["state"]) == ("inactive", "running")


def test_a_wrong_declaration_exits_1_and_is_not_tried_again(installed: Host) -> None:
    installed.declare(WEB + "colour = 3\n")
    assert installed.systemctl("start", check=False).returncode == 1
    found = installed.show(UNIT, "ActiveState", "ExecMainStatus", "NRestarts", "Result")
    assert found == {"ActiveState": "failed", "ExecMainStatus": "1", "NRestarts": "0", "Result": "exit-code"}
    (line,) = [entry["MESSAGE"] for entry in installed.entries("-u", UNIT) if "env.toml" in entry["MESSAGE"]]
    assert "env.toml:5" in line
    assert "colour" in line
    # Mended, it starts: systemd counts nothing against it.
    installed.declare(WEB)
    installed.systemctl("start")


def test_a_failure_while_running_exits_2_and_is_tried_again_until_it_works(installed: Host) -> None:
    installed.declare(WEB)
    installed.path("/srv/run/agent.lock").mkdir()  # what it opens for writing
    assert installed.systemctl("start", check=False).returncode == 1
    wait_until(lambda: int(installed.show(UNIT, "NRestarts")["NRestarts"]) >= 2)
    said = installed.journal("-u", UNIT)
    assert "/srv/run/agent.lock: cannot be opened for locking: Is a directory" in said
    assert said.count("Main process exited, code=exited, status=2") >= 2
    installed.path("/srv/run/agent.lock").rmdir()
    installed.wait_unit_state(UNIT, ActiveState="active")


# -- what the operator sees -------------------------------------------------------------------------------------------


def test_status_and_journal_say_what_goes_on(installed: Host) -> None:
    installed.declare(WEB + '[service.broken]\nkind = "command"\ncommand = ["/bin/false"]\n')
    installed.systemctl("start")
    installed.wait_unit_state(UNIT, StatusText="1 running, 1 failed; failed: broken")
    shown = installed.systemctl("status").stdout
    assert "Active: active (running)" in shown
    assert 'Status: "1 running, 1 failed; failed: broken"' in shown
    assert "/usr/bin/python3 -m http.server 8000" in shown
    said = installed.journal("-u", UNIT)
    assert f"agent started: version 0.1.0, pid {installed.pid}, prefix /srv" in said
    assert f"web[{installed.pid}]: started: pid" in said
    assert f"broken[{installed.pid}]: failed: exited 1" in said
    # By name, too, and nothing that the agent said is lost to its unit.
    assert "agent started" in installed.journal("--identifier=agent")


def test_every_service_is_in_a_cgroup_of_its_own_below_the_slice(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    pid = installed.service("web")["pid"]
    assert installed.status()["agent"]["containment"] == "cgroup"
    inside = installed.path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1]
    assert inside.endswith("/agent.slice/agent.service/service.web")
    own = installed.path(f"/proc/{installed.pid}/cgroup").read_text().splitlines()[-1]
    assert own.endswith("/agent.slice/agent.service/supervisor")


# -- stopping and starting again --------------------------------------------------------------------------------------


def test_stop_ends_everything_and_is_no_failure(installed: Host) -> None:
    installed.declare(WEB + f'[service.stray]\nkind = "command"\ncommand = ["{installed.program("stray", STRAY)}"]\n')
    before = set(installed.processes())
    installed.systemctl("start")
    assert _left_by(installed, before)
    wait_until(lambda: any("7654" in words for words in installed.processes().values()))
    installed.systemctl("stop")
    found = installed.show(UNIT, "ActiveState", "Result", "ExecMainStatus")
    assert found == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert not _left_by(installed, before)
    assert sorted(path.name for path in installed.path("/srv/run").iterdir()) == [
        "agent.lock",
        "stray.lock",
        "web.lock",
    ]


def test_a_stop_sends_a_service_its_own_stop_signal_and_no_other(installed: Host) -> None:
    program = installed.program("listener", LISTENER)
    installed.declare(
        f'[service.listener]\nkind = "command"\ncommand = ["{program}"]\nready = "notify"\nstop_signal = "INT"\n'
    )
    installed.systemctl("start")
    installed.systemctl("stop")
    assert [line.split()[1:] for line in installed.log("listener").splitlines()] == [["SIGINT"]]


def test_restart_starts_everything_anew(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    agent, web = installed.pid, installed.service("web")["pid"]
    installed.systemctl("restart")
    assert installed.pid != agent
    assert installed.service("web")["pid"] != web
    assert installed.service("web")["state"] == "running"
    assert installed.show(UNIT, "NRestarts") == {"NRestarts": "0"}


# -- reloads ----------------------------------------------------------------------------------------------------------


def test_reload_returns_when_what_is_declared_is_true_however_long_it_takes(installed: Host) -> None:
    installed.drop_in("short", "[Service]\nTimeoutStartSec=1s\n")  # which is that of a reload too
    installed.declare(WEB)
    installed.systemctl("start")
    agent, web = installed.pid, installed.service("web")["pid"]
    installed.declare(WEB + gated(installed))
    reloading = installed.popen(["systemctl", "reload", UNIT])
    installed.wait_journal(lambda line: "started: pid" in line, "AGENT_SERVICE=slow")
    time.sleep(1.5)
    assert reloading.poll() is None
    open_gate(installed)
    assert reloading.wait(10) == 0
    assert installed.service("slow")["state"] == "running"
    assert (installed.pid, installed.service("web")["pid"]) == (agent, web)
    installed.declare(WEB.replace("8000", "8001"))
    installed.systemctl("reload")
    assert [service["name"] for service in installed.status()["services"]] == ["web"]
    assert installed.service("web")["pid"] != web
    assert installed.pid == agent


def test_reload_fails_on_a_wrong_declaration_and_touches_nothing(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    agent, web, before = installed.pid, installed.service("web")["pid"], installed.in_effect()
    assert before["service"]["web"]["command"][-1] == "8000"
    installed.declare(WEB.replace("8000", "8001") + "colour = 3\n")
    done = installed.systemctl("reload", check=False)
    assert done.returncode == 1
    assert "Job for agent.service failed" in done.stderr
    assert "env.toml:5" in installed.journal("-u", UNIT)
    found = installed.show(UNIT, "ActiveState", "MainPID", "NRestarts")
    assert found == {"ActiveState": "active", "MainPID": str(agent), "NRestarts": "0"}
    assert installed.in_effect() == before
    report = installed.service("web")
    assert (report["state"], report["pid"], report["restarts"]) == ("running", web, 0)
    installed.declare(WEB)
    installed.systemctl("reload")
    assert installed.service("web")["pid"] == web


# -- what dies and what hangs -----------------------------------------------------------------------------------------


def test_sigkill_of_the_agent_leaves_no_process_and_it_comes_back(installed: Host) -> None:
    installed.drop_in("later", "[Service]\nRestartSec=2s\n")
    installed.declare(WEB + f'[service.stray]\nkind = "command"\ncommand = ["{installed.program("stray", STRAY)}"]\n')
    before = set(installed.processes())
    installed.systemctl("start")
    wait_until(lambda: any("7654" in words for words in installed.processes().values()))
    killed = installed.pid
    installed.signal(killed, signal.SIGKILL)
    # Between its end and the restart nothing of it is there.
    installed.wait_unit_state(UNIT, SubState="auto-restart")
    assert not _left_by(installed, before)
    installed.wait_unit_state(UNIT, ActiveState="active")
    assert installed.show(UNIT, "NRestarts") == {"NRestarts": "1"}
    assert installed.pid != killed
    assert installed.service("web")["state"] == "running"
    # What the dead one had written down for its successor names nobody any more.
    assert not [event for event in installed.events() if event["kind"] == "predecessor_ended"]


def test_sigstop_of_the_agent_is_seen_by_the_watchdog_which_restarts_it(installed: Host) -> None:
    installed.drop_in("watchdog", "[Service]\nWatchdogSec=1s\n")
    installed.declare(WEB)
    installed.systemctl("start")
    hung = installed.pid
    installed.signal(hung, signal.SIGSTOP)
    installed.wait_journal(lambda line: "Watchdog timeout" in line, "-u", UNIT)
    installed.wait_unit_state(UNIT, ActiveState="active", NRestarts="1")
    assert installed.pid != hung
    assert installed.service("web")["state"] == "running"
    journal = installed.journal("-u", UNIT)
    assert "Failed with result 'watchdog'" in journal
    assert "Fatal Python error: Aborted" in journal, "systemd wakes it up to be aborted, and so it tells where it was"


def test_an_agent_that_is_aborted_leaves_the_stacks_of_its_threads_in_the_journal(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    installed.agentctl("upgrade")  # the program that follows in the same process does as the first one did
    aborted, worker = installed.pid, installed.service("web")["pid"]
    fatal = sum(
        1 << number - 1 for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
    )
    assert masks(installed, aborted)["SigCgt"] & fatal == fatal
    assert not [name for name, found in masks(installed, worker).items() if found & fatal], "a worker has nothing of it"
    installed.signal(aborted, signal.SIGABRT)
    installed.wait_unit_state(UNIT, ActiveState="active", NRestarts="1")
    journal = installed.journal("-u", UNIT, "--output=cat")
    stack = journal.partition("Fatal Python error: Aborted\n")[2]
    assert re.search(r'Current thread 0x\w+ \(most recent call first\):\n(  File ".+", line \d+ in .+\n)+', stack)
    assert re.search(r'  File "agent/control/daemon.py", line \d+ in run\n', stack)
    assert "status=6/ABRT" in journal
    assert installed.service("web")["state"] == "running"


def test_the_watchdog_is_fed_for_as_long_as_the_agent_answers(installed: Host) -> None:
    installed.drop_in("watchdog", "[Service]\nWatchdogSec=500ms\n")
    installed.declare(WEB)
    installed.systemctl("start")
    agent = installed.pid
    time.sleep(2)  # four times what the watchdog allows
    assert installed.show(UNIT, "MainPID", "NRestarts") == {"MainPID": str(agent), "NRestarts": "0"}


def test_a_hung_worker_is_replaced(installed: Host) -> None:
    installed.veth("near0", "far0")
    installed.declare(
        '[service.lan]\nkind = "capture"\ninterfaces = ["near0"]\nheartbeat = { interval = "200ms", timeout = "2s" }\n'
    )
    installed.systemctl("start")
    hung = installed.until("lan", state="running")["pid"]
    installed.signal(hung, signal.SIGSTOP)
    wait_until(lambda: installed.service("lan")["pid"] not in (hung, None))
    assert installed.until("lan", state="running")["restarts"] == 1
    (event,) = [event for event in installed.events() if event["kind"] == "hung"]
    assert "heartbeat stale" in event["message"]
    assert "hung: heartbeat stale" in installed.journal("AGENT_SERVICE=lan")


def test_a_killed_worker_is_replaced(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    assert replaced(installed, "web")["restarts"] == 1


# -- time and boots ---------------------------------------------------------------------------------------------------


def test_cleaning_of_temporary_files_does_not_touch_what_runs(installed: Host) -> None:
    installed.veth("near0", "far0")
    installed.declare(WEB + '[service.lan]\nkind = "capture"\ninterfaces = ["near0"]\n')
    # The harshest that anybody may have declared: whatever is older than a second, everywhere the agent writes or runs.
    installed.write(
        "/etc/tmpfiles.d/harsh.conf",
        f"e {installed.prefix} - - - aAbBcCmM:1s\n"
        "d /tmp 1777 root root aAbBcCmM:1s\nd /var/tmp 1777 root root aAbBcCmM:1s\n",
    )
    installed.write("/tmp/of-others", "")
    installed.write(f"{installed.prefix}/of-others", "")
    installed.systemctl("start")
    installed.until("lan", state="running")
    pids = {name: installed.service(name)["pid"] for name in ("web", "lan")}
    before = _files(installed, installed.prefix)
    time.sleep(1.5)
    installed.run(["systemd-tmpfiles", "--clean"])
    assert not installed.path("/tmp/of-others").exists(), "nothing was cleaned at all"
    assert not installed.path(f"{installed.prefix}/of-others").exists(), "nothing was cleaned at all"
    after = _files(installed, installed.prefix)
    # A segment that is closed meanwhile has another name, what is written anew is another file of that name.
    left_out = {path for path, inode in before.items() if path not in after and inode not in after.values()}
    assert left_out == {Path("of-others")}
    # It goes on, and new workers start as before.
    assert {name: installed.service(name)["pid"] for name in ("web", "lan")} == pids
    for name in ("web", "lan"):
        replaced(installed, name)


def test_a_directory_for_temporary_files_that_is_full_and_executes_nothing_is_no_obstacle(installed: Host) -> None:
    installed.veth("near0", "far0")
    installed.declare(
        f'{WEB}[service.lan]\nkind = "capture"\ninterfaces = ["near0"]\n'
        '[service.far]\nkind = "scan"\ntargets = ["10.99.0.2"]\nports = "22"\nevery = "1d"\n'
    )
    for place in ("/tmp", "/var/tmp"):
        installed.run(["mount", "-t", "tmpfs", "-o", "noexec,size=64k", "none", place])
        filled = installed.run(["dd", "if=/dev/zero", f"of={place}/full"], check=False)
        assert "No space left on device" in filled.stderr
    assert installed.systemctl("start").returncode == 0
    inside = f"/proc/{installed.pid}/root/tmp"
    assert installed.run(["sh", "-c", f"echo text > {inside}/text"], check=False).returncode != 0, (
        "it has a full one too"
    )
    assert "noexec" in installed.run(["findmnt", "-no", "OPTIONS", "--task", str(installed.pid), "/tmp"]).stdout
    for name in ("web", "lan"):
        installed.until(name, state="running")
    installed.agentctl("start", "far")
    installed.until("far", state="waiting", last_exit="exited 0")
    # The next version is tried out and followed without it, too.
    process, worker = installed.pid, installed.service("web")["pid"]
    installed.agentctl("upgrade")
    assert (installed.pid, installed.service("web")["pid"]) == (process, worker)
    assert installed.show(UNIT, "NRestarts") == {"NRestarts": "0"}


def test_a_reboot_comes_back_to_the_same_state(installed: Host) -> None:
    keep = '[service.kept]\nkind = "command"\ncommand = ["/bin/sleep", "4321"]\nrestart = "unless-stopped"\n'
    off = '[service.off]\nkind = "command"\ncommand = ["/bin/sleep", "1234"]\nenabled = false\n'
    installed.declare(WEB + keep + keep.replace("kept", "halted") + off)
    installed.systemctl("start")
    installed.agentctl("stop", "halted")
    before = {service["name"]: service["state"] for service in installed.status()["services"]}
    newest = installed.events()[-1]["cursor"]
    installed.reboot()
    installed.wait_unit_state(UNIT, ActiveState="active")
    assert {service["name"]: service["state"] for service in installed.status()["services"]} == before
    assert before == {"web": "running", "kept": "running", "halted": "stopped", "off": "stopped"}
    # The shutdown was an orderly one, and its history goes on.
    kinds = [event["kind"] for event in installed.events() if event["cursor"] > newest]
    assert kinds.index("agent_stopped") < kinds.index("agent_started") < kinds.index("agent_ready")


def test_a_power_failure_comes_back_to_the_same_state(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    web = installed.service("web")["pid"]
    # What a dead agent leaves on the disk names processes that are others by the next boot.
    assert installed.path("/srv/run/web.pid").read_text() == f"{web}\n"
    installed.fail()
    installed.boot()
    installed.wait_unit_state(UNIT, ActiveState="active")
    assert installed.service("web")["state"] == "running"
    assert installed.path("/srv/run/web.pid").read_text() == f"{installed.service('web')['pid']}\n"


def test_verify_finds_nothing_to_say_about_the_units(installed: Host) -> None:
    done = installed.run(
        ["systemd-analyze", "verify", "--man=no", *(f"/etc/systemd/system/{name}" for name in _units(installed))]
    )
    assert (done.stdout, done.stderr) == ("", "")


def _units(host: Host) -> list[str]:
    return sorted(path.name for path in host.path("/etc/systemd/system").glob("agent*"))


def _left_by(host: Host, before: set[int]) -> list[list[str]]:
    """Processes that were not there before, systemd's own helpers and our commands apart."""
    return [words for pid, words in host.processes().items() if pid not in before and "systemd" not in words[0]]


def _files(host: Host, inside: str) -> dict[Path, int]:
    """The inode of each file and directory."""
    top = host.path(inside)
    return {path.relative_to(top): path.lstat().st_ino for path in top.rglob("*") if not path.is_socket()}
