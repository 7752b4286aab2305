"""A store that is killed at every instant at which it changes the disk, and what the next one makes of it.

Run as a program: ``dying.py DIRECTORY`` prints what was found, as JSON. The process that works on the store is a fork,
and kills itself (SIGKILL) right before its n-th change of a file's name, as the interpreter's audit events tell of
them. For each kind of state that this leaves, a second fork is killed the same way while it adopts it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from agent.linux.files import write_atomic
from agent.workers.capture import account, pins
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.naming import CLOSED, OPEN
from agent.workers.capture.retention import Limits
from agent.workers.capture.savefile import parse_header, whole_records
from agent.workers.capture.store import Store

SECOND = 10**9
HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
RECORDS = 5
BUDGET = 1200

_CHANGES = {"os.rename", "os.remove", "os.link", "os.truncate"}
_countdown = -1


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    global _countdown
    making = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
    if _countdown >= 0 and (event in _CHANGES or making):
        if _countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        _countdown -= 1


def quiet(kind: str, message: str) -> None:
    pass


def packet(number: int, position: int) -> bytes:
    return struct.pack("=IIII", number, position, 20, 20) + f"{number:010}{position:010}".encode()


def work(directory: Path) -> None:
    """A short life: segments are written, accounted for, indexed, pinned and removed."""
    store = Store(directory, Limits(BUDGET), quiet)
    store.adopt()
    for number in range(1, 6):
        part = store.part("eth0", number * SECOND)
        part.write_bytes(HEADER + b"".join(packet(number, position) for position in range(RECORDS)) + b"half")
        store.grow(part, part.stat().st_size)
        write_atomic(part.with_suffix(TAIL), b"tail")
        store.tend()
        os.truncate(part, HEADER_AND_RECORDS)
        final = store.keep(part, number * SECOND, HEADER_AND_RECORDS, told(number))
        write_atomic(final.with_suffix(INDEX), b"index")
        pin = pins.add(directory, 0, SECOND, created=number * SECOND)
        store.tend()
        pins.remove(directory, pin.id)
        store.tend()
        store.make_room(400)
    empty = store.part("eth0", 9 * SECOND)
    empty.write_bytes(HEADER)
    store.discard(empty)


HEADER_AND_RECORDS = len(HEADER) + RECORDS * len(packet(0, 0))


def told(number: int) -> Account:
    return Account(
        interface="eth0",
        opened=number,
        closed=number + 1,
        written=RECORDS,
        bytes=HEADER_AND_RECORDS,
        reason="size",
        received=RECORDS,
    )


def killed(work: Callable[[Path], None], directory: Path, at: int) -> bool:
    """Whether there was a change number ``at`` to be killed before."""
    child = os.fork()
    if child == 0:
        global _countdown
        _countdown = at
        try:
            work(directory)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status and not os.WIFSIGNALED(status):
        raise SystemExit(f"the work of the child failed, killed at {at}")
    return os.WIFSIGNALED(status)


def packets(directory: Path, *suffixes: str) -> set[bytes]:
    """The bytes of all whole records."""
    found = set()
    for path in (path for suffix in suffixes for path in directory.glob(f"eth0/*{suffix}")):
        content = path.read_bytes()
        form = parse_header(content)
        if form is not None:
            length = whole_records(content[len(HEADER) :], form).length
            size = len(packet(0, 0))
            found |= {content[at : at + size] for at in range(len(HEADER), len(HEADER) + length, size)}
    return found


def adopt(directory: Path) -> None:
    Store(directory, Limits(BUDGET), quiet).adopt()


def judge(directory: Path) -> list[str]:
    """What is wrong once the store in ``directory`` was adopted."""
    before = packets(directory, CLOSED, OPEN)
    kinds: list[str] = []
    store = Store(directory, Limits(BUDGET), lambda kind, _: kinds.append(kind))
    store.adopt()
    files = {path.name: path for path in (directory / "eth0").glob("*")} if (directory / "eth0").exists() else {}
    closed = [path for path in files.values() if path.suffix == CLOSED]
    wrong = [f"{kind} was reported" for kind in kinds if kind != "segment_recovered"]
    if packets(directory, CLOSED) != before:
        wrong.append("packets are lost")
    if store.bytes != sum(path.stat().st_size for path in files.values()):
        wrong.append(f"{store.bytes} bytes are counted")
    for path in files.values():
        if path.suffix not in (CLOSED, ACCOUNT, INDEX) or path.with_suffix(CLOSED).name not in files:
            wrong.append(f"{path.name} is left over")
    for path in closed:
        record = account.read(path.with_suffix(ACCOUNT))
        whole = whole_records(path.read_bytes()[len(HEADER) :], parse_header(HEADER)).records  # type: ignore[arg-type]  # it is one
        if record is None or (record.written, record.bytes) != (whole, path.stat().st_size):
            wrong.append(f"{path.name} has the account {record}")
    if store.unindexed != sum(path.with_suffix(INDEX).name not in files for path in closed):
        wrong.append(f"{store.unindexed} are without an index")
    pins.read_all(directory)
    return wrong


def main(place: Path) -> None:
    sys.addaudithook(_watch)
    wrong: list[str] = []
    kills = 0
    seen = set()
    for first in itertools.count():
        left = place / "left"
        ended = not killed(work, left, first)
        kinds = str(sorted(Counter(path.suffix for path in left.rglob("*")).items()))
        # What is as much alike as that is not adopted by one that is killed again: time is short.
        for second in itertools.count() if kinds not in seen else (10**6,):
            seen.add(kinds)
            again = place / "again"
            shutil.copytree(left, again)
            adopted = not killed(adopt, again, second)
            wrong += [f"killed at {first}, then at {second}: {what}" for what in judge(again)]
            shutil.rmtree(again)
            kills += 1
            if adopted:
                break
        shutil.rmtree(left)
        if ended:
            break
    print(json.dumps({"kills": kills, "instants": first, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
