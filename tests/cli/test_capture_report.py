"""``agentctl capture report``: the page in a real browser, its figures, and what is said of what cannot be."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main
from agent.workers.capture import account, pins
from agent.workers.capture.account import Account
from agent.workers.inventory.sighting import NAME, Sighting
from agent.workers.inventory.snapshot import Snapshot, entries, write
from agent.workers.inventory.table import Table
from tests.chromium import body, colours, show
from tests.cli.harness import Agentctl
from tests.workers.flows import traffic
from tests.workers.flows.traffic import NOON, SECOND

SPAN = ("--from", "2026-11-20T14:00Z", "--to", "2026-11-20T15:00Z")
SCRIPT = "<script>alert('x')</script>"
HOSTILE = "<img&onerror=1>"
"""The name of an interface, as the kernel would take it."""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Two captures of an hour. Of ``edge`` one segment has losses, one was recovered, and there is a pin."""
    made = tmp_path / "srv"
    for service, interface, seed, count in (("edge", "eth0", 1, 700), ("lab", HOSTILE, 2, 60)):
        packets = traffic.mixed(seed, count, NOON + 600 * SECOND, seconds=2400)
        each = len(packets) // 4
        parts = [packets[:each], packets[each : 2 * each], packets[2 * each : 3 * each], packets[3 * each :]]
        paths = traffic.store(made / "spool" / service, interface, parts)
        for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
            lost = 1234 if (service, number) == ("edge", 1) else 0
            told = Account(
                interface=interface,
                opened=part[0].time,
                closed=part[-1].time,
                written=len(part),
                bytes=path.stat().st_size,
                reason="time",
                received=len(part) + lost,
                dropped_kernel=lost,
                lag=12_000_000,
                filter=f"not host 10.0.0.1 {SCRIPT}",
            )
            if (service, number) == ("edge", 2):
                told = Account(interface=interface, opened=0, closed=part[-1].time, written=len(part), bytes=1,
                               reason="recovered")  # fmt: skip
            account.write(path.with_suffix(".meta"), told)
    pins.add(made / "spool" / "edge", NOON + 900 * SECOND, NOON + 1200 * SECOND, created=NOON, reason=SCRIPT, by="ann")
    _inventory(made / "spool" / "edge")
    key = made / "key"
    key.mkdir()
    (key / "env.toml").write_text(
        '[service.edge]\nkind = "capture"\ninterfaces = ["eth0"]\nbudget = "1GiB"\nmax_age = "30d"\n'
    )
    return made


def _inventory(store: Path) -> None:
    table = Table()
    before, within = NOON - 3600 * SECOND, NOON + 700 * SECOND
    table.fold(
        [
            Sighting(before, within, "arp", 0, "00:1b:21:00:00:0a", "10.0.0.1"),
            Sighting(within, within, "arp", 0, "00:1b:21:00:00:0b", "10.0.0.77"),
            Sighting(within, within, "dhcp", 0, "00:1b:21:00:00:0b", "", NAME, SCRIPT),
        ],
        "eth0",
    )
    stations, addresses, heard = (entries(rows) for rows in table.tables())
    write(
        store / "hosts.json",
        Snapshot(written=NOON, counters={}, progress={}, own=[], stations=stations, addresses=addresses, heard=heard),
    )


def report(prefix: Path, *arguments: str) -> int:
    return main(["--prefix", str(prefix), "capture", "report", *arguments])


def figures(prefix: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert report(prefix, "--json", *SPAN, *arguments) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_page_is_shown_by_a_browser_as_it_is_meant_to_be(
    prefix: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = figures(prefix, capsys)
    page = tmp_path / "report.html"
    assert report(prefix, *SPAN, "-o", str(page)) == 0
    shown = show(page, tmp_path)
    assert shown.console == []
    assert shown.asked == [], "the page asks for something beside itself"
    words = re.sub(r"[ \n]+", " ", body(shown.dom))
    assert "Capture report 2026-11-20 14:00:00 to 15:00:00 UTC (1h)" in words
    for heading in ("Traffic over time", "Top talkers", "Drops, and where", "How far back", "Hosts newly seen"):
        assert heading in words
    assert f"{told['packets']:,}".replace(",", "\u202f") in words
    assert "1\u202f234 packets lost in closed segments" in words
    assert told["top"]["host"][0]["host"] in words and "tcp/443" in words
    assert "10.0.0.77" in words and "00:1b:21:00:00:0b" in words
    assert "of 1.00 GiB, at most 30d old" in words
    assert shown.dom.count("<svg") == 4 and shown.dom.count('class="lost"') > 0
    # What is hostile is text, and nothing else.
    assert "<script" not in shown.dom and "<img" not in shown.dom
    assert words.count("&lt;script&gt;alert('x')&lt;/script&gt;") == 4  # the filter twice, the pin, the name of a host
    assert "&lt;img&amp;onerror=1&gt;" in words
    seen = colours(shown.picture)
    assert len(seen) > 100
    blue = sum(count for colour, count in seen.items() if colour[2] > colour[0] + 80)
    assert blue > 500, "no line of traffic is drawn"


def test_it_holds_no_reference_to_anything(prefix: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert report(prefix, *SPAN, "-o", str(page)) == 0
    text = page.read_text()
    assert not re.search(r"<(script|img|link|iframe|object|embed|base|form|a)\b|\b(src|href|url)\s*[=(]", text)
    assert "default-src 'none'" in text
    assert page.stat().st_mode & 0o777 == 0o640


def test_the_columns_hold_every_packet_and_byte(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = figures(prefix, capsys)
    assert sum(sum(one["packets"]) for one in told["traffic"]) == told["packets"]
    assert sum(sum(one["bytes"]) for one in told["traffic"]) == told["bytes"]
    frames = [packet.frame for seed, count in ((1, 700), (2, 60))
              for packet in traffic.mixed(seed, count, NOON + 600 * SECOND, seconds=2400)]  # fmt: skip
    assert (told["packets"], told["bytes"]) == (len(frames), sum(map(len, frames)))
    assert all(len(one["bytes"]) == 180 for one in told["traffic"])
    first = next(index for index, amount in enumerate(told["traffic"][0]["packets"]) if amount)
    assert first == 30  # ten minutes, of which each column is 20 s


def test_what_was_lost_is_told_where_and_when(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = figures(prefix, capsys, "--service", "edge")
    (balance,) = told["accounts"]
    assert (balance["dropped_kernel"], balance["holds"], balance["segments"]) == (1234, True, 4)
    assert balance["recovered_segments"] == 1
    assert balance["received"] == balance["written"] + 1234
    lossy = [one for one in told["losses"] if one["dropped_kernel"]]
    assert len(lossy) == 1
    assert sum(told["traffic"][0]["dropped"]) == 1234
    width = told["bucket_seconds"]
    marked = [told["from"] + index * width for index, lost in enumerate(told["traffic"][0]["dropped"]) if lost]
    assert lossy[0]["from"] - width <= marked[0] and marked[-1] <= lossy[0]["to"]


def test_an_account_that_does_not_add_up_is_called_so(
    prefix: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    meta = sorted((prefix / "spool" / "edge" / "eth0").glob("*.meta"))[0]
    told = json.loads(meta.read_text())
    meta.write_text(json.dumps(told | {"received": told["received"] + 5, "unaccounted": 5}))
    assert figures(prefix, capsys, "--service", "edge")["accounts"][0]["holds"] is False
    page = tmp_path / "report.html"
    assert report(prefix, *SPAN, "-o", str(page)) == 0
    assert "off by 5" in page.read_text() and "does not hold" in page.read_text()


def test_damaged_files_are_told_of_and_the_rest_is_there(
    prefix: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (prefix / "spool" / "edge" / "hosts.json").write_text("{")
    segment = sorted((prefix / "spool" / "edge" / "eth0").glob("*.pcap"))[0]
    segment.write_bytes(b"z" * 2000)
    os.utime(segment, ns=(NOON + 1200 * SECOND, NOON + 1200 * SECOND))
    next(iter((prefix / "spool" / "lab").glob("*/*.meta"))).write_bytes(b"\xff{")
    page = tmp_path / "report.html"
    assert report(prefix, *SPAN, "-o", str(page)) == 0
    said = capsys.readouterr().err
    assert f"{segment}: it is no pcap file" in said and "no inventory" in said
    assert "Not read:" in page.read_text() and "1 without account" in page.read_text()


@pytest.mark.parametrize("number", [-1, 2**48, 2**63 - 1, 10**30])
def test_no_number_that_somebody_has_planted_breaks_it(
    prefix: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, number: int
) -> None:
    for meta in (prefix / "spool" / "edge" / "eth0").glob("*.meta"):
        told = json.loads(meta.read_text())
        times = {} if number > 2**60 else {name: told[name] for name in ("opened", "closed")}
        planted = {name: number if isinstance(value, int) else value for name, value in told.items()}
        meta.write_text(json.dumps(planted | times))
    pin = prefix / "spool" / "edge" / "pin-0mh71rk00.json"
    pin.write_text(json.dumps({"id": "0mh71rk00", "from": 0, "to": number, "created": number}))
    assert report(prefix, *SPAN, "-o", str(tmp_path / "report.html")) == 0
    assert report(prefix, *SPAN, "--json") == 0
    assert main(["--prefix", str(prefix), "capture", "list"]) == 0
    assert main(["--prefix", str(prefix), "capture", "pins"]) == 0
    assert "internal error" not in capsys.readouterr().err


def test_of_a_time_of_which_nothing_is_stored_the_page_says_so(prefix: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert report(prefix, "--from", "2025-01-01", "--to", "2025-01-02", "-o", str(page)) == 0
    assert "No packet is stored of this time." in page.read_text()
    assert "nothing stored" in page.read_text()


def test_without_a_begin_it_goes_as_far_back_as_there_is_anything(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(prefix, "--json", "--to", "2026-11-20T15:00Z") == 0
    told = json.loads(capsys.readouterr().out)
    assert NOON / 1e9 + 600 <= told["from"] < NOON / 1e9 + 660


def test_standard_output_gets_the_page(prefix: Path, agentctl: Agentctl) -> None:
    done = agentctl("capture", "report", *SPAN, "-o", "-")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!doctype html>") and done.stdout.endswith("</html>\n")


def test_a_file_is_written_whole_or_not_at_all(prefix: Path, agentctl: Agentctl, tmp_path: Path) -> None:
    place = tmp_path / "there"
    place.mkdir()
    page = place / "report.html"
    page.write_text("the one of before")
    done = subprocess.run(
        ["prlimit", "--fsize=8192", *agentctl.command("capture", "report", *SPAN, "-o", str(page))],
        env=agentctl.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == f"agentctl: {page}: cannot be written: File too large\n"
    assert [path.name for path in place.iterdir()] == ["report.html"]
    assert page.read_text() == "the one of before"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-o", "/dev/full"), 2, "/dev/full: cannot be written: No space left on device"),
        (("-o", "/nowhere/report.html"), 2, "/nowhere/report.html: cannot be written: No such file or directory"),
        ((), 1, "name the file that the page is to go to"),
        (("--service", "edgy", "-o", "-"), 1, "no capture is named 'edgy'; did you mean edge?"),
        (("--last", "1h", "--from", "14:00", "-o", "-"), 1, "--last goes back from now"),
    ],
)
def test_what_cannot_be_is_one_line(
    prefix: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert report(prefix, *arguments) == code
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and not out


def test_where_nothing_is_stored_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path, "-o", "-") == 2
    assert f"no packets are stored below {tmp_path / 'spool'}" in capsys.readouterr().err
