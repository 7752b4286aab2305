"""A real systemd, booted in a container of its own, and what a test does with one.

A container is an instant of work (boot in a third of a second), so each test gets its own. It is made of

- a *keeper*: an idle process in a PID and a mount namespace of its own. It mounts a file system in memory and, with
  that as the writable layer, the pristine Debian of root.py. All else lives in these namespaces, so its end is the end
  of everything: processes, mounts, networks, files. The kernel ends it when pytest ends, however that happens;
- systemd-nspawn inside of these, which boots the tree. It can be booted again: the layer stays.

Readiness is systemd's own READY=1, handed on by nspawn. Commands enter with nsenter, in a few milliseconds.

Protocol of the notifications: sd_notify(3) and, for ``X_NSPAWN_LEADER_PID``, systemd-nspawn(1).
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import harness
from tests.harness import notify_socket, wait_gone, wait_until
from tests.system import cgroups
from tests.system.root import CACHE, SUITE, debian

PATIENCE = 1.5 * harness.PATIENCE
"""Seconds after which something that should have happened has not; longer than any command waits by itself."""

REBOOT = 133
"""How nspawn ends, under ``--keep-unit``, when the container wants to be booted again."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}

# Arguments: mount point, trees to read with the topmost first. Ends at the end of its input: when pytest does.
# redirect_dir: a directory of a tree below can be renamed, as on a disk.
KEEPER = """
mount -t tmpfs -o mode=0755 agent-test "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work,redirect_dir=on" agent-test "$1/root"
echo ready
exec cat
"""

CONSOLE_MAX = 1 << 20

Command = Sequence[str | os.PathLike[str]]

EVIDENCE = CACHE / "evidence"

running: list[Container] = []
"""Every container that is there, for whoever keeps evidence of a failed test."""

kept: dict[str, list[Path]] = {}
"""Where evidence lies, by the test as pytest calls it in PYTEST_CURRENT_TEST."""


def evidence(test: str) -> list[Path]:
    """Keep evidence of each container that is there now; returns where that of all that this test has had lies."""
    for container in running:
        place = EVIDENCE / re.sub(r"\W+", "-", test)[-200:].strip("-")
        places = kept.setdefault(test, [])
        if not places:
            shutil.rmtree(place, ignore_errors=True)  # that of an earlier run
        places.append(place / str(len(places)))
        container.keep_evidence(places[-1])
    return kept.get(test, [])


class Container:
    """One machine. Entering the context boots it, unless ``boot=False``: then it is only its files until ``boot()``.

    ``binds`` maps paths of the host to paths inside, read-only. ``options`` go to systemd-nspawn as they are. ``suite``
    is the release of Debian; ``layer`` lies on top of it, as ``keep_layer`` has made it.
    """

    def __init__(
        self,
        *,
        boot: bool = True,
        binds: Mapping[Path, str] | None = None,
        options: Iterable[str] = (),
        suite: str = SUITE,
        layer: Path | None = None,
    ) -> None:
        self._suite = suite
        self._layers = [layer] if layer else []
        self._boots_at_once = boot
        self._options = [f"--bind-ro={outside}:{inside}" for outside, inside in (binds or {}).items()] + [*options]
        self._console = os.memfd_create("console")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._first = 0

    # -- coming and going -------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        trees = ":".join(map(str, [*self._layers, debian(self._suite)]))
        self.cgroup = cgroups.new_cgroup()
        mount = CACHE / "mount"
        mount.mkdir(exist_ok=True)
        # Whatever kills pytest kills unshare, whose end kills the keeper, which is process 1 of all the others.
        self._keeper = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig=KILL"),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-ec", KEEPER, "sh", mount, trees),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._console,
            start_new_session=True,
        )
        assert self._keeper.stdout
        running.append(self)
        try:
            assert self._keeper.stdout.readline() == b"ready\n", f"no file system for a container: {self.console()}"
            (self._first,) = _children(self._keeper.pid)
            self._upper = Path(f"/proc/{self._first}/root{mount}/upper")
            self._tree = self._upper.with_name("root")
            if self._boots_at_once:
                self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # When the test is reported as failed this one will not be there any more.
        if error is not None and (test := os.environ.get("PYTEST_CURRENT_TEST")):
            with suppress(AssertionError, OSError, subprocess.SubprocessError):
                evidence(test)
        self.close()

    def close(self) -> None:
        """The end of it, at once and without being asked: as when the power fails."""
        if self in running:
            running.remove(self)
        self._keeper.kill()
        self._keeper.communicate()
        # Process 1 of a PID namespace is not gone before all the others in there are.
        if self._first:
            wait_gone(self._first)
        if self._nspawn:
            self._nspawn.wait()
        os.close(self._console)
        cgroups.remove_cgroup(self.cgroup)

    def boot(self) -> None:
        """Boot, and return when systemd has started all that it starts by default."""
        assert not self.is_up, "it runs already"
        with notify_socket(CACHE) as (listener, name):
            self._nspawn = subprocess.Popen(
                [
                    *cgroups.outside(self.cgroup),
                    *("nsenter", f"--target={self._first}", "--mount", "--pid"),
                    *cgroups.inside(self.cgroup),
                    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--private-network"),
                    *("--notify-ready=yes", "--link-journal=no", f"--directory={CACHE}/mount/root", *self._options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=self._console,
                env={**ENVIRONMENT, "NOTIFY_SOCKET": name, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )
            self._leader = 0
            deadline = time.monotonic() + PATIENCE
            while not self._heard(listener, deadline):
                pass

    def _heard(self, listener: socket.socket, deadline: float) -> bool:
        """Take one notification; whether it was READY=1."""
        assert self._nspawn
        while not select.select([listener], [], [], 0.1)[0]:
            assert self._nspawn.poll() is None, f"nspawn exited {self._nspawn.returncode}: {self.console()}"
            assert time.monotonic() < deadline, f"not booted within {PATIENCE} s: {self.console()}"
        lines = listener.recv(65536).decode().splitlines()
        if not self._leader and any(line.startswith("X_NSPAWN_LEADER_PID=") for line in lines):
            self._leader = _process_one_below(self._nspawn.pid)
        return "READY=1" in lines

    @property
    def is_up(self) -> bool:
        """Whether it is booted, and not on its way down."""
        return self._nspawn is not None and self._nspawn.poll() is None

    def poweroff(self) -> None:
        """Shut down in an orderly way, and return when it is off."""
        self._down("poweroff", 0)

    def reboot(self) -> None:
        """Shut down in an orderly way, and boot the same file system again."""
        self._down("reboot", REBOOT)
        self.boot()

    def fail(self) -> None:
        """The power fails: it is off at once. What was written stays, as on a disk that had it all in time."""
        assert self._nspawn
        os.kill(self._leader, signal.SIGKILL)
        self._nspawn.wait(PATIENCE)

    def _down(self, verb: str, code: int) -> None:
        self.run(["systemctl", "--no-block", verb])
        assert self._nspawn
        found = self._nspawn.wait(PATIENCE)
        assert found == code, f"after a {verb} nspawn exited {found}: {self.console()}"

    # -- commands ---------------------------------------------------------------------------------------------------

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        user: str | None = None,
        timeout: float = PATIENCE,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or another user; with ``check`` it has to exit 0.

        It runs in all namespaces of the container, but in no unit: see :meth:`run_in_unit`.
        """
        done = subprocess.run(
            self.entered(command, user=user, environment=environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(map(str, command))} exited {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def run_in_unit(self, command: Command, *properties: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same as a transient service of the container's systemd, with these properties of a unit (``User=x``)."""
        unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"]
        return self.run([*unit, *(f"--property={one}" for one in properties), "--", *command], **options)

    def popen(self, command: Command, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command inside that goes on while the test does something else. It ends with the container."""
        return subprocess.Popen(self.entered(command), **options)

    def kill_when(self, moment: Callable[[], bool], command: Command) -> bool:
        """Run a command and SIGKILL it, with all that it has started in its session, when the moment has come.

        Whether that came before its end.
        """
        leader = ["setsid", "sh", "-c", 'echo begun; exec "$@"', "sh", *command]
        with self.popen(leader, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._console) as process:
            assert process.stdout and process.stdout.readline() == b"begun\n"
            (group,) = _children(process.pid)
            wait_until(lambda: process.poll() is not None or moment())
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            process.stdout.read()
            return process.wait(PATIENCE) != 0

    def entered(
        self, command: Command, *, user: str | None = None, environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command for the host that runs this one inside."""
        assert self._leader, "it has not been booted"
        variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, **(environment or {})}.items()]
        become = ["runuser", "-u", user, "--"] if user else []
        inside = ["env", "--ignore-environment", "--chdir=/", *variables, *become, *map(str, command)]
        return ["nsenter", f"--target={self._leader}", "--all", *inside]

    # -- units and their journal ------------------------------------------------------------------------------------

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit, as ``systemctl show`` spells them; all of them when none is named."""
        asked = [f"--property={','.join(names)}"] if names else []
        lines = self.run(["systemctl", "show", *asked, "--", unit]).stdout.splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def wait_unit_state(self, unit: str, patience: float = PATIENCE, **wanted: str) -> dict[str, str]:
        """Wait until a unit has these properties (``ActiveState="failed"``), and return them as they are."""
        found: dict[str, str] = {}

        def matches() -> bool:
            found.update(self.show(unit, *wanted))
            return found == wanted

        wait_until(matches, lambda: f"{unit} is {found} and not {wanted}\n{self.journal('-u', unit)}", patience)
        return found

    def journal(self, *arguments: str) -> str:
        """What journalctl prints with these arguments, everything sent before included."""
        if self.is_up:
            self.run(["journalctl", "--sync"])
            return self.run(["journalctl", "--no-pager", "--quiet", *arguments], check=False).stdout
        logs = ["journalctl", "--no-pager", "--quiet", f"--directory={self._tree}/var/log/journal", *arguments]
        return subprocess.run(logs, capture_output=True, text=True, check=False).stdout

    def entries(self, *arguments: str) -> list[dict[str, Any]]:
        """The same as entries with all their fields."""
        return [json.loads(line) for line in self.journal("--output=json", *arguments).splitlines()]

    def wait_journal(self, matches: Callable[[str], bool], *arguments: str, patience: float = PATIENCE) -> str:
        """Follow the journal until one of its lines matches, and return that line."""
        deadline = time.monotonic() + patience
        follow = ["journalctl", "--no-pager", "--quiet", "--follow", "--lines=all", *arguments]
        while time.monotonic() < deadline:
            # Where the inotify instances of root are all taken it does not follow, and ends: then it is asked again.
            with self.popen(follow, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
                assert process.stdout
                pending = b""
                try:
                    while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                        if not (read := os.read(process.stdout.fileno(), 65536)):
                            break
                        *lines, pending = (pending + read).split(b"\n")
                        for line in lines:
                            if matches(line.decode(errors="replace")):
                                return line.decode(errors="replace")
                finally:
                    process.kill()
        raise AssertionError(f"no such line within {patience} s in\n{self.journal(*arguments)}")

    # -- files and processes ----------------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """Its root directory as the host sees it, what is mounted inside included while it runs.

        An absolute symlink in there leads to the host's files: ``run`` what has to follow one.
        """
        return Path(f"/proc/{self._leader}/root") if self.is_up else self._tree

    def path(self, inside: str) -> Path:
        """An absolute path of the container as the host sees it."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> Path:
        """Write a file, and the directories that lead to it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def copy_in(self, outside: Path, inside: str) -> Path:
        """Copy a file or a directory into the container, owned by root."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", "--preserve=mode,timestamps,links", "-T", outside, target], check=True)
        return target

    def keep_layer(self, target: Path) -> None:
        """Copy what has been written here so far to ``target``, a layer for other containers. It has to be off."""
        assert not self.is_up
        subprocess.run(["rm", "-rf", target], check=True)
        subprocess.run(["cp", "--archive", "-T", self._upper, target], check=True)  # xattrs say what was removed

    def processes(self) -> dict[int, list[str]]:
        """The command line of each of its live processes, by the host's PID."""
        namespace = Path(f"/proc/{self._leader}/ns/pid").readlink()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == namespace:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                    found[int(entry.name)] = words or [(entry / "comm").read_text().strip()]
            except OSError:
                continue  # it ended meanwhile, or is dead already
        return found

    def signal(self, inside: int, number: signal.Signals) -> None:
        """Send a signal to a process by the PID that it has inside."""
        self.run(["bash", "-c", f"kill -{number.value} {inside}"])

    # -- networks ---------------------------------------------------------------------------------------------------

    def veth(self, near: str, far: str, address: str = "10.99.0.1/24", peer: str = "10.99.0.2/24") -> None:
        """A cable: ``near`` in the container, ``far`` in a network namespace inside it that is called ``far`` too."""
        for words in (
            f"netns add {far}",
            f"link add {near} type veth peer name {far} netns {far}",
            f"address add {address} dev {near}",
            f"-netns {far} address add {peer} dev {far}",
            f"link set {near} up",
            f"-netns {far} link set lo up",
            f"-netns {far} link set {far} up",
        ):
            self.run(["ip", *words.split()])

    # -- evidence ---------------------------------------------------------------------------------------------------

    def console(self) -> str:
        """What nspawn and the boot have said."""
        # Read without a seek: nspawn writes at the same offset.
        return os.pread(self._console, CONSOLE_MAX, 0).decode(errors="replace")

    def keep_evidence(self, directory: Path) -> None:
        """Write down the console, the journal and the state of the units for a person to look at."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "console").write_text(self.console())
        (directory / "journal").write_text(self.journal("--output=short-precise"))
        if self.is_up:
            (directory / "units").write_text(self.run(["systemctl", "--all", "--full"], check=False).stdout)
            (directory / "processes").write_text(
                "".join(f"{pid} {' '.join(words)}\n" for pid, words in sorted(self.processes().items()))
            )


# -- where its processes are ----------------------------------------------------------------------------------------


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _process_one_below(pid: int) -> int:
    """The descendant that is process 1 of a PID namespace of its own."""
    generation = _children(pid)
    while generation:
        for one in generation:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{one}/status").read_text().splitlines())
            if status["NSpid"].split()[-1] == "1":
                return one
        generation = [child for one in generation for child in _children(one)]
    raise AssertionError(f"process {pid} has no container below it")
