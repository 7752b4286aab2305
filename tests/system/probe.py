"""What a program may do where it runs: tries one thing after the other, and prints the outcomes as JSON.

It is copied into a container and run there as a service of the agent and outside of any sandbox: what it reports is
only worth something where the two differ. An outcome is ``ok`` or the name of an errno. Needs the path of a directory
that it may write to.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CLONE = {"user": 0x10000000, "mount": 0x00020000, "net": 0x40000000, "pid": 0x20000000}  # linux/sched.h
NUMBERS = {
    "finit_module": 313,
    "clock_settime": 227,
    "bpf": 321,
    "ptrace": 101,
    "personality": 135,
    "capset": 126,
}  # x86-64
ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
AF_VSOCK = 40

libc = ctypes.CDLL(None, use_errno=True)
own = Path(sys.argv[1])


def checked(result: int) -> None:
    if result == -1:
        raise OSError(ctypes.get_errno(), "")


def call(name: str, *arguments: int) -> None:
    checked(libc.syscall(ctypes.c_long(NUMBERS[name]), *map(ctypes.c_long, arguments)))


def in_a_child(act: Callable[[], object]) -> None:
    """What would change this process for good."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, "")


def writable_and_executable() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def executable_later() -> None:
    size = 4096
    libc.mmap.restype = ctypes.c_void_p
    area = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
    checked(libc.mprotect(ctypes.c_void_p(area), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC))


def run_what_was_written(place: Path) -> None:
    program = place / "written"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    subprocess.run([program], check=True)


def become_setuid() -> None:
    program = own / "setuid"
    program.write_text("")
    program.chmod(0o4755)


def run_setuid_program() -> None:
    """A program of root's with the set-user-ID bit, that tells as whom it runs."""
    if subprocess.run(["/opt/tests/setuid-id", "-u"], capture_output=True, check=True).stdout != b"0\n":
        raise OSError(errno.EPERM, "")


def give_up() -> None:
    """As ping, tcpdump and many a server do before they begin."""
    version_3 = struct.pack("II", 0x20080522, 0)  # linux/capability.h
    checked(libc.syscall(ctypes.c_long(NUMBERS["capset"]), version_3, bytes(24)))
    os.setuid(os.getuid())


def realtime() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


PROBES: dict[str, Callable[[], object]] = {
    "write below its own directory": lambda: (own / "probe").write_text("x"),
    "write where everybody may": lambda: Path("/opt/open/probe").write_text("x"),
    "write to a directory of its own elsewhere": lambda: Path("/var/lib/thing/probe").write_text("x"),
    "write where everybody may, below the prefix": lambda: Path("/srv/open/probe").write_text("x"),
    "see homes": lambda: Path("/home/somebody/letter").read_text(),
    "see the temporary files of others": lambda: Path("/tmp/of-others").read_text(),
    "see process 1": lambda: Path("/proc/1").stat(),
    "read the declaration": lambda: Path("/srv/key/env.toml").read_text(),
    "load a module": lambda: call("finit_module", -1, 0, 0),
    "set the clock": lambda: call("clock_settime", 0, 0),
    "load a program into the kernel": lambda: call("bpf", -1, 0, 0),
    "trace": lambda: in_a_child(lambda: call("ptrace", 0, 0, 0, 0)),
    "change its execution domain": lambda: in_a_child(lambda: call("personality", ADDR_NO_RANDOMIZE)),
    **{
        f"make a {name} namespace": lambda flag=flag: in_a_child(lambda: checked(libc.unshare(flag)))  # type: ignore[misc]
        for name, flag in CLONE.items()
    },
    "map memory to write and execute": writable_and_executable,
    "make written memory executable": executable_later,
    "execute what it wrote": lambda: run_what_was_written(own),
    "execute what it wrote to /tmp": lambda: run_what_was_written(Path("/tmp")),
    "make a program set-user-ID": become_setuid,
    "gain privileges by a set-user-ID program": run_setuid_program,
    "become root": lambda: in_a_child(lambda: os.setuid(0)),
    "give a file away": lambda: os.chown(own / "probe", 1, 1),
    "run before all others": lambda: in_a_child(realtime),
    "talk an exotic protocol": lambda: socket.socket(AF_VSOCK, socket.SOCK_STREAM).close(),
    "pin itself to a processor": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "give up what it holds": lambda: in_a_child(give_up),
    "listen on a port below 1024": lambda: socket.create_server(("127.0.0.1", 81)).close(),
    "send raw packets": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close(),
    "make a network connection": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
    "make a cgroup outside of the agent's": lambda: Path("/sys/fs/cgroup/probe").mkdir(),
}


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


if __name__ == "__main__":
    print(json.dumps({name: outcome(act) for name, act in PROBES.items()}), flush=True)
