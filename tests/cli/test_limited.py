"""Whoever reads the stores stands back for everything else, and is stopped by a limit that is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.main import main
from tests.workers.flows import traffic

NOON = traffic.NOON


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    for name in ("edge", "lab"):
        parts = [traffic.mixed(number, 20, NOON + number * 600 * traffic.SECOND) for number in range(3)]
        traffic.store(tmp_path / "spool" / name, "eth0", parts)
    return tmp_path


_PROGRAM = """
import contextlib, io, os, sys
from agent.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(sys.argv[1:])
print(code, os.sched_getscheduler(0) == os.SCHED_IDLE, os.nice(0))
"""


@pytest.mark.parametrize(
    ("words", "idle", "niceness"),
    [
        (("flows", "--from", "2026-11-20"), True, 0),
        (("flows", "export", "-o", "/dev/null"), True, 0),
        (("hosts",), True, 0),
        (("capture", "list"), True, 0),
        (("capture", "report", "-o", "/dev/null"), True, 0),
        (("capture", "query", "port 53"), True, 0),
        (("top", "--once", "--interval", "200ms"), False, 19),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, tuple) else "",
)
def test_what_reads_the_stores_stands_back(prefix: Path, words: tuple[str, ...], idle: bool, niceness: int) -> None:
    command = [sys.executable, "-c", _PROGRAM, "--prefix", str(prefix), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    code, was_idle, was_nice = done.stdout.split()
    assert (code, was_idle == "True", int(was_nice)) == ("0", idle, niceness), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("flows", "--by", "proto"),
        ("flows", "export", "-o", "OUT"),
        ("capture", "report"),
        ("capture", "report", "-o", "OUT"),
    ],
    ids=" ".join,
)
def test_what_a_limit_ended_is_told(
    prefix: Path, tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    asked = [out if word == "OUT" else word for word in words]
    span = ["--from", "2026-11-20T14:00Z", "--to", "2026-11-20T16:00Z"]
    assert main(["--json", "--prefix", str(prefix), *asked, *span, "--time-limit", "1us"]) == 0
    told = capsys.readouterr()
    assert "agentctl: stopped by --time-limit: edge is left out from 2026-11-20 " in told.err
    if words == ("capture", "report", "-o", "OUT"):
        assert "Stopped by --time-limit:" in Path(out).read_text()
        return
    document = json.loads(told.out)
    assert document["stopped_by"] == "time"
    assert {one["service"] for one in document["left_out"]} == {"edge", "lab"}
    assert main(["--json", "--prefix", str(prefix), *asked, *span, "--time-limit", "0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["stopped_by"], document["left_out"]) == (None, [])


def test_what_was_read_before_the_limit_is_counted(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.workers.flows.records import Effort, Origins, Within, collect

    class Once(Effort):
        def late(self) -> bool:
            return self.segments == 2

    effort = Once()
    store = prefix / "spool" / "edge"
    span = Within(NOON, NOON + 7200 * traffic.SECOND)
    packets = sum(int(batch.rows.packets.sum()) for batch in collect(store, "edge", span, Origins(), effort))
    assert packets == sum(len(traffic.mixed(number, 20)) for number in range(2))
    assert NOON + 1200 * traffic.SECOND <= effort.stopped["edge"] <= NOON + 1260 * traffic.SECOND
