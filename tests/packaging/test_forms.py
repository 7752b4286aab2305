"""Both forms run: from anywhere, without a home, and the installed form without a temporary directory too."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from agent.cli.guard import EXIT_BROKEN_PIPE
from agent.errors import EXIT_INTERRUPTED
from agent.workers.inventory.snapshot import Snapshot
from agent.workers.inventory.snapshot import write as snapshot_of_hosts
from tests.binary import Built
from tests.installation.image import snapshot, system
from tests.workers.index.pcaps import records, segment

BARE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""As a service manager starts a program: no HOME, no locale, no TMPDIR."""

VFS_CAP_REVISION_2, VFS_CAP_FLAGS_EFFECTIVE = 0x02000000, 1
"""linux/capability.h: what setcap(8) writes."""

FAILED_TO_MAP, FAILED_TO_UNPACK = 127, 255
"""Exit codes of the dynamic linker and of PyInstaller's bootloader, before anything of ours runs."""

pytestmark = pytest.mark.timeout(300)  # the first one may build


@pytest.fixture(params=["installed", "onefile"])
def form(request: pytest.FixtureRequest, program: Built) -> Path:
    """The executable of each form."""
    return program.program if request.param == "installed" else program.onefile


def run(
    program: Path, *words: str, environment: Mapping[str, str] = BARE, wrapper: tuple[str, ...] = (), cwd: str = "/"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*wrapper, str(program), *words],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


def mounted(directory: Path, options: str) -> tuple[str, ...]:
    """In a mount namespace of its own, where ``directory`` is a file system with these options."""
    script = f'mount -t tmpfs -o {options} none {directory} && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


def test_it_says_its_version(form: Path, program: Built) -> None:
    done = run(form, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"agentctl {program.version}\n", "")


def test_it_proves_itself(form: Path, program: Built) -> None:
    done = run(form, "selftest", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert {part["verdict"] for part in told["parts"]} == {"ok"}, told
    itself = "the one file" if form == program.onefile else "the installed form"
    assert f"{itself} starts itself, and others without its libraries" in done.stdout


def test_it_keeps_the_contract_of_exit_codes(form: Path, tmp_path: Path) -> None:
    assert run(form, "--prefix", str(tmp_path), "status").returncode == 2
    wrong = run(form, "--prefix", str(tmp_path), "validate")
    assert wrong.returncode == 1 and str(tmp_path / "key" / "env.toml") in wrong.stderr
    assert run(form, "nonsense").returncode == 1
    assert run(form, "calendar", "daily Europe/Nowhere").returncode == 1
    assert run(form).returncode == 1


def test_every_command_can_be_loaded(form: Path) -> None:
    from agent.cli.commands import COMMANDS

    for name in COMMANDS:
        done = run(form, name, "--help")
        assert done.returncode == 0 and f"Usage: agentctl {name}" in done.stdout, done.stderr


def test_every_worker_can_be_loaded(form: Path) -> None:
    for kind in ("capture", "scan", "index"):
        done = run(form, "worker", kind)
        assert "SERVICE_CONFIG" in done.stderr, done.stderr
        assert done.returncode == 1


def test_tables_are_drawn_on_a_terminal(form: Path, tmp_path: Path) -> None:
    done = run(
        Path("/usr/bin/script"),
        "-qec",
        f"{form} --prefix {tmp_path} doctor",
        "/dev/null",
        environment=BARE | {"TERM": "xterm"},
    )
    assert "\x1b[1mCHECK" in done.stdout and "libpcap version" in done.stdout, done.stdout + done.stderr


def test_variables_of_python_mean_nothing_to_it(form: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not mine')")
    odd = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nonexistent", "PYTHONSTARTUP": "/x", "PYTHONOPTIMIZE": "2"}
    done = run(form, "selftest", "--json", environment=BARE | odd, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_nothing_is_written_to_a_home(form: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    home = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    assert run(form, "selftest", environment=BARE | home).returncode == 0
    assert not list((tmp_path / "home").iterdir())


def test_an_ordinary_user_can_run_it(form: Path, program: Built) -> None:
    """Where the build lies is not everybody's to enter, so it is shown at a place that is."""
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    script = f'mount --bind {program.onefile.parent} /mnt && exec {nobody} "$@"'
    wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    done = run(Path("/mnt") / form.relative_to(program.onefile.parent), "selftest", "--json", wrapper=wrapper)
    assert done.returncode == 0, done.stdout + done.stderr
    capture = json.loads(done.stdout)["parts"][0]
    assert (capture["verdict"], capture["unchecked"][:11]) == ("ok", "CAP_NET_RAW")


def test_with_a_file_capability_anybody_captures(form: Path, program: Built, open_directory: Path) -> None:
    """The kernel sets AT_SECURE then, and the dynamic linker takes no directions from the environment."""
    copied = open_directory / "agentctl"
    if form == program.onefile:
        shutil.copyfile(form, copied)
        copied.chmod(0o755)
    else:
        shutil.copytree(form.parent, open_directory, dirs_exist_ok=True)
    cap_net_raw = struct.pack("<5I", VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, 1 << 13, 0, 0, 0)
    os.setxattr(copied, "security.capability", cap_net_raw)
    done = run(copied, "selftest", "--json", wrapper=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    assert done.returncode == 0, done.stdout + done.stderr
    capture = json.loads(done.stdout)["parts"][0]
    assert capture["verdict"] == "ok" and capture["finding"].endswith("packets captured on lo"), capture


NEEDED = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libz.so.1")
"""What docs/binary.md says that a host must have."""


def test_a_host_needs_nothing_but_glibc_and_zlib(form: Path, program: Built, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for directory in ("lib64", "lib", "tmp", "proc", "dev", "program"):
        (root / directory).mkdir(parents=True)
    shutil.copy("/lib64/ld-linux-x86-64.so.2", root / "lib64")
    for name in NEEDED:
        shutil.copy(next(path for path in Path("/usr/lib").glob(f"*/{name}")), root / "lib")
    script = (
        f"mount -t proc none {root}/proc && mount --rbind /dev {root}/dev && "
        f'mount --bind {program.onefile.parent} {root}/program && exec chroot {root} "$@"'
    )
    wrapper = ("unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", script, "sh")
    inside = Path("/program") / form.relative_to(program.onefile.parent)
    assert run(inside, "--version", wrapper=wrapper).stdout == f"agentctl {program.version}\n"
    done = run(inside, "selftest", "--json", wrapper=wrapper)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {part["name"]: (part["verdict"], part["unchecked"]) for part in json.loads(done.stdout)["parts"]}
    assert set(told) == {"capture", "scan", "hosts", "calendar", "processes", "index", "database", "control"}
    assert {verdict for verdict, _ in told.values()} == {"ok"}
    assert {told[part] for part in ("capture", "scan", "hosts", "index", "database", "control")} == {("ok", "")}
    assert "install tzdata" in told["calendar"][1] and "cannot start env" in told["processes"][1]


# -- the temporary directory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["noexec", "ro", "size=4k", "nr_inodes=1"])
def test_the_installed_form_needs_no_temporary_directory(program: Built, tmp_path: Path, options: str) -> None:
    wrapper = mounted(tmp_path, options)
    done = run(program.program, "--version", environment=BARE | {"TMPDIR": str(tmp_path)}, wrapper=wrapper)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(program.program, "selftest", environment=BARE | {"TMPDIR": str(tmp_path)}, wrapper=wrapper)
    assert "capture    ok" in done.stdout and "processes  ok" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ("noexec", FAILED_TO_MAP, "failed to map segment"),
        ("size=4m", FAILED_TO_UNPACK, "decompression resulted in return code -1"),
    ],
    ids=["noexec", "full"],
)
def test_the_one_file_does_and_says_so(program: Built, tmp_path: Path, options: str, code: int, reason: str) -> None:
    wrapper = mounted(tmp_path, options)
    done = run(program.onefile, "--version", environment=BARE | {"TMPDIR": str(tmp_path)}, wrapper=wrapper)
    assert done.returncode == code
    assert reason in done.stderr and done.stdout == ""


def test_what_the_one_file_unpacks_later_may_not_fit_and_it_says_so(program: Built, tmp_path: Path) -> None:
    wrapper = mounted(tmp_path, "size=50m")
    bare = BARE | {"TMPDIR": str(tmp_path)}
    assert run(program.onefile, "status", environment=bare, wrapper=wrapper).returncode == 2
    done = run(program.onefile, "prove", "index", str(tmp_path), environment=bare, wrapper=wrapper)
    assert (done.returncode, done.stderr) == (2, "")
    assert "the rest of this program cannot be unpacked there: No space left on device; TMPDIR" in done.stdout


def test_the_one_file_runs_with_another_temporary_directory(program: Built, tmp_path: Path) -> None:
    (bad := tmp_path / "bad").mkdir()
    (good := tmp_path / "good").mkdir()
    for directory, code in ((bad, FAILED_TO_MAP), (good, 0)):
        environment = BARE | {"TMPDIR": str(directory)}
        assert (
            run(program.onefile, "--version", environment=environment, wrapper=mounted(bad, "noexec")).returncode
            == code
        )
    assert not list(good.iterdir()), "what it unpacked is gone with it"


def test_the_one_file_leaves_a_directory_that_it_may_not_write_to(program: Built, tmp_path: Path) -> None:
    done = run(
        program.onefile, "--version", environment=BARE | {"TMPDIR": str(tmp_path)}, wrapper=mounted(tmp_path, "ro")
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- the stores of others ---------------------------------------------------------------------------------------------

NOBODY = 65534

READERS = {
    "list": ["capture", "list"],
    "query": ["capture", "query", "udp port 53", "--limit", "3"],
    "flows": ["flows", "udp port 53", "--from", "2026-11-20"],
    "flows export": ["flows", "export", "--from", "2026-11-20", "-o", "-"],
    "report": ["capture", "report", "--from", "2026-11-20T14:00Z", "--to", "2026-11-20T15:00Z", "-o", "-"],
    "hosts": ["hosts"],
    "pin": ["capture", "pin", "edge", "--from", "2026-11-20T14:00Z", "--to", "2026-11-20T15:00Z", "--reason", "why"],
    "pins": ["capture", "pins"],
    "top": ["top", "--once", "--interval", "200ms"],
}
"""What is asked of a store, in this order; ``unpin`` and ``stream`` come after these."""


def test_the_one_file_reads_the_store_of_another_user_from_where_only_root_gets_to(
    program: Built, tmp_path: Path, open_directory: Path
) -> None:
    """It looks with the eyes of whose the store is, and then unpacks and loads what it needs as root."""
    tmp_path.chmod(0o700)
    mine = Path(shutil.copy(program.onefile, tmp_path))
    store = open_directory / "spool" / "edge"
    segment(store, "eth0", 0, records(20))
    segment(store, "eth0", 60, records(20, 60_000), ".part")
    inventory = Snapshot(written=time.time_ns(), counters={}, progress={}, own=[], stations=[], addresses=[], heard=[])
    snapshot_of_hosts(store / "hosts.json", inventory)
    (open_directory / "run").mkdir()
    for path in (open_directory, *open_directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
        if path != open_directory:
            path.chmod(0o750 if path.is_dir() else 0o640)

    def ask(*words: str) -> str:
        done = run(mine, "--prefix", str(open_directory), *words, environment=BARE | {"TMPDIR": str(tmp_path)})
        assert done.returncode == 0, (words, done.stderr)
        assert not re.search("permission|internal|Traceback|PYI", done.stderr, re.IGNORECASE), (words, done.stderr)
        return done.stdout

    told = {name: ask(*words) for name, words in READERS.items()}
    assert all(told[name] for name in READERS if name != "hosts"), told
    assert told["query"].count("\n") == 3
    (pin,) = store.glob("pin-*.json")
    assert pin.stat().st_uid == NOBODY
    ask("capture", "unpin", "edge", pin.stem.removeprefix("pin-"))
    assert not list(store.glob("pin-*"))
    with subprocess.Popen(
        [mine, "--prefix", open_directory, "capture", "stream", "edge"],
        env=BARE | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as stream:
        assert stream.stdout and stream.stderr
        assert stream.stdout.read(24)[:4] == b"\x4d\x3c\xb2\xa1"
        stream.send_signal(signal.SIGINT)
        assert (stream.wait(20), stream.stderr.read()) == (EXIT_INTERRUPTED, b"")


# -- where its output goes --------------------------------------------------------------------------------------------

TALK = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["calendar", "*:*:*", "--iterations", "10000"],
    ["calendar", "*:*:*", "--iterations", "10000", "--json"],
]
"""What says a little, and what says more than a pipe holds."""


def told_to(program: Path, words: list[str], output: int) -> subprocess.CompletedProcess[str]:
    """A run that prints to this descriptor, which is closed."""
    try:
        return subprocess.run(
            [str(program), *words], env=BARE, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(output)


@pytest.mark.parametrize("words", TALK, ids=" ".join)
def test_a_reader_that_has_gone_ends_it_without_a_word(form: Path, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = told_to(form, words, writing)
    assert (done.returncode, done.stderr) == (EXIT_BROKEN_PIPE, "")


def test_a_reader_that_goes_after_a_line_ends_it_without_a_word(form: Path) -> None:
    with subprocess.Popen(
        [str(form), "calendar", "*:*:*", "--iterations", "10000"],
        env=BARE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == EXIT_BROKEN_PIPE


@pytest.mark.parametrize("words", TALK, ids=" ".join)
def test_a_disk_that_takes_nothing_is_a_failure_in_a_line(form: Path, words: list[str]) -> None:
    done = told_to(form, words, os.open("/dev/full", os.O_WRONLY))
    assert done.returncode == 2
    assert done.stderr == "agentctl: cannot write the output: No space left on device\n"


# -- who it is --------------------------------------------------------------------------------------------------------


def test_through_a_symbolic_link_it_is_the_file_itself(program: Built, tmp_path: Path) -> None:
    """What it starts again is of its own version, wherever the link points by then (test_children.py)."""
    (tmp_path / "current").symlink_to(program.tree)
    (tmp_path / "agentctl").symlink_to("current/agentctl")
    done = run(tmp_path / "agentctl", "selftest", "--json")
    assert done.returncode == 0, done.stdout
    assert run(tmp_path / "agentctl", "--version").stdout == f"agentctl {program.version}\n"


@pytest.mark.parametrize("words", [["status"], ["--version"], ["run-once", "none"]])
def test_an_interrupt_ends_it_at_any_time_without_a_word(form: Path, tmp_path: Path, words: list[str]) -> None:
    times = []
    for _ in range(3):
        begun = time.monotonic()
        run(form, *words, "--prefix", str(tmp_path))
        times.append(time.monotonic() - begun)
    whole = min(times)  # what it takes where nothing else runs
    ended, tracebacks = [], 0
    for part in range(1, 41):
        command = [str(form), *words, "--prefix", str(tmp_path)]
        with subprocess.Popen(
            command,
            env=BARE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(whole * part / 40)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert process.stderr
            told = process.stderr.read()
        tracebacks += "Traceback" in told or "PYI" in told
        ended.append(process.returncode)
    # While Python itself starts, which is 3 ms of each, it answers in its own way: one in 200 here.
    assert tracebacks <= 2
    assert len([code for code in ended if code in (-signal.SIGINT, EXIT_INTERRUPTED)]) > 10


@pytest.mark.parametrize("words", [("install",), ("install", "--dry-run")], ids=" ".join)
def test_a_system_for_another_machine_is_refused_in_a_line_and_nothing_is_touched(
    form: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    image = system(tmp_path / "image")
    env = bytearray((image / "usr/bin/env").read_bytes())
    env[18:20] = (183).to_bytes(2, "little")  # e_machine of elf(5)
    (image / "usr/bin/env").write_bytes(env)
    before = snapshot(image)
    done = run(form, *words, "--root", str(image))
    told = f"this agentctl is for {os.uname().machine}, and the system below {image} is aarch64"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"agentctl: {told}: get the agentctl for aarch64\n"
    assert snapshot(image) == before
