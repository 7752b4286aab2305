"""What the worker tells once a run has ended: each change of a real network exactly once, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import pytest

from agent.declaration.model import Scan, Scanning
from agent.workers.scan import exporting, stored
from agent.workers.scan.diff import compare
from agent.workers.scan.memory.reading import Memory
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench, Ended
from tests.workers.scan.changing import Servers, World
from tests.workers.scan.conftest import Story
from tests.workers.scan.test_diff import HOST, by_ndiff

pytestmark = pytest.mark.timeout(180)  # the first to be run waits for all that ``told`` tells

PLENTY = Scanning(rate=1_000_000, network_rate=1_000_000, target_rate=1_000_000)
STOPS, STARTS, NEWER, SECURED, EXPOSED, RENEWED, REPLACED, REMOVED, NEW, DROPPED, SAME = (
    f"10.99.0.{number}" for number in range(101, 112)
)
BEFORE = World(
    {
        STOPS: {22: "ssh", 443: "https"},
        STARTS: {22: "ssh"},
        NEWER: {22: "ssh"},
        SECURED: {443: "http"},
        EXPOSED: {443: "https"},
        RENEWED: {443: "https"},
        REPLACED: {22: "ssh"},
        REMOVED: {22: "ssh"},
        DROPPED: {22: "ssh"},
        SAME: {22: "ssh", 443: "https", 6379: "redis"},
    }
)
AFTER = World(
    {
        STOPS: {443: "https"},
        STARTS: {22: "ssh", 6379: "redis"},
        NEWER: {22: "other ssh"},
        SECURED: {443: "https"},
        EXPOSED: {443: "http"},
        RENEWED: {443: "other https"},
        REPLACED: {22: "redis"},
        NEW: {22: "ssh"},
        DROPPED: {22: "ssh"},
        SAME: {22: "ssh", 443: "https", 6379: "redis"},
    },
    dropped=((DROPPED, 22),),
)
EXPECTED = [
    ("certificate_changed", RENEWED, 443),
    ("host_gone", REMOVED, None),
    ("host_new", NEW, None),
    ("port_closed", STOPS, 22),
    ("port_filtered", DROPPED, 22),
    ("port_opened", STARTS, 6379),
    ("port_opened", NEW, 22),
    ("service_changed", REPLACED, 22),
    ("tls_added", SECURED, 443),
    ("tls_removed", EXPOSED, 443),
    ("version_changed", NEWER, 22),
]
SILENCE = ("host_gone", "port_filtered")


class Runs(NamedTuple):
    """What was told by three runs, of which the network changed after the first."""

    first: Ended
    second: Ended
    third: Ended
    bench: Bench
    servers: Servers


def changed(net: lab.Network, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    bench = Bench(tmp_path_factory.mktemp("changes"))
    servers = Servers(net, tmp_path_factory.mktemp("servers"))
    service = Scan(
        name="lan",
        targets=("10.99.0.101-10.99.0.111",),
        ports="22,80,443,6379,9000",
        profile="services",
        rate=20_000,
        retries=2,
        budget=PLENTY,
    )
    inside = tuple(net.inside())
    try:
        with servers.up(BEFORE):
            first = bench.run(service, prefix=inside)
        with servers.up(AFTER):
            return Runs(first, bench.run(service, prefix=inside), bench.run(service, prefix=inside), bench, servers)
    finally:
        bench.close()


STORIES = (changed,)


@pytest.fixture(scope="module")
def runs(told: Mapping[Story, Future[Any]]) -> Runs:
    found: Runs = told[changed].result()
    return found


def changes(ended: Ended) -> list[tuple[str, str, int | None]]:
    """The events about hosts and ports, each as often as it was told."""
    assert ended.code == 0, ended.stderr
    events = [json.loads(note["X_EVENT"]) for note in ended.notes if "X_EVENT" in note]
    return sorted(
        (event["kind"], event["data"]["address"], event["data"].get("port"))
        for event in events
        if "address" in event["data"]
    )


def test_the_first_run_only_says_how_much_there_is(runs: Runs) -> None:
    assert changes(runs.first) == []
    assert runs.first.events["scan_changes"]["data"]["host_new"] == len(BEFORE.hosts)
    assert "degraded" not in runs.first.events["scan_finished"]["message"]


def test_each_change_is_told_once_and_nothing_else_is(runs: Runs) -> None:
    """What answered otherwise is told by the next run. What fell silent is only believed at once where something that
    has answered for long still does, and here nothing has been known for long: so it takes a second run."""
    assert changes(runs.second) == [one for one in EXPECTED if one[0] not in SILENCE]
    assert changes(runs.third) == [one for one in EXPECTED if one[0] in SILENCE]
    assert "scan_changes" not in runs.second.events.keys() | runs.third.events.keys()
    with Memory(runs.bench.data / "scan.db") as memory:
        kept = sorted((one.kind, one.address, one.number or None) for one in memory.changes() if one.run != 1)
    assert kept == EXPECTED


def test_what_was_and_what_is_stands_in_the_event(runs: Runs) -> None:
    notes = (*runs.second.notes, *runs.third.notes)
    events = [json.loads(note["X_EVENT"]) for note in notes if "X_EVENT" in note]
    said = {event["kind"]: event["message"] for event in events}
    old, new = runs.servers.ssh.decode(), runs.servers.other_ssh.decode()
    assert said["version_changed"].startswith(f"{NEWER} tcp/22: ssh OpenSSH {old}p1")
    assert f"-> ssh OpenSSH {new}p1" in said["version_changed"]
    assert said["tls_added"].startswith(f"{SECURED} tcp/443: http nginx")
    assert "-> ssl/http nginx" in said["tls_added"]
    before, after = (runs.servers.certificates[name][:16] for name in ("https", "other https"))
    subject = f"commonName={lab.NAME}"
    assert said["certificate_changed"] == f"{RENEWED} tcp/443: {before} {subject} -> {after} {subject}"
    assert "ssh OpenSSH" in said["service_changed"]
    assert "-> redis Redis key-value store" in said["service_changed"]
    assert said["host_gone"] == f"{REMOVED} does not answer any more"
    assert said["port_filtered"] == f"{DROPPED} tcp/22 is filtered, was open"


def test_what_is_so_now_is_what_is_there(runs: Runs) -> None:
    with Memory(runs.bench.data / "scan.db") as memory:
        now = {host.address: {port.number for port in host.ports if port.state == "open"} for host in memory.now()}
    expected = {address: set(ports) for address, ports in AFTER.hosts.items()}
    expected[DROPPED] = set()
    assert now == expected


def test_nothing_that_the_real_ndiff_finds_between_the_two_runs_is_missed(runs: Runs) -> None:
    with Memory(runs.bench.data / "scan.db") as memory:
        before, after = sorted(memory.runs(3), key=lambda run: run.id)[:2]
        sides = [(list(memory.hosts(run.id)), stored.side(run, memory.coverage(run.id))) for run in (before, after)]
        found = compare(*sides[0], *sides[1]).changes
        documents = [
            "".join(exporting.xml(stored.told("lan", run, tuple(memory.hosts(run.id)), memory.coverage(run.id))))
            for run in (before, after)
        ]
    # A script that says something else, such as ssl-cert, makes ndiff 7.93 crash.
    plain = [re.sub(r"<script .*?</script>", "", document).encode() for document in documents]
    ndiff = by_ndiff(*plain)
    ours = {(change.address, (change.protocol, low)) for change in found for low, _ in change.ports or ((0, 0),)}
    for address, what, key in ndiff:
        if what in ("host", "port"):
            assert (address, key if what == "port" else HOST) in ours, (address, what, key)
        else:
            assert what == "extraports"
            assert any(where == address for where, _ in ours)
    assert {address for address, _, _ in ndiff} >= {STOPS, STARTS, NEWER, REPLACED, REMOVED, NEW, DROPPED}
    # What ndiff cannot see.
    assert {address for address, _ in ours} - {address for address, _, _ in ndiff} == {SECURED, EXPOSED, RENEWED}
