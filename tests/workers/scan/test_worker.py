"""The scan worker as the agent starts it: a process, real nmap, known listeners in network namespaces of our own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from agent.declaration.model import History
from agent.workers.inventory import snapshot
from agent.workers.inventory.sighting import FLOW, SERVICE, Sighting
from agent.workers.inventory.table import Table
from agent.workers.scan import exporting
from agent.workers.scan.library import nmap
from agent.workers.scan.memory.reading import Memory
from tests.workers.scan.bench import ROOT, Bench, Ended, lan, loopback, until

OPEN = [("10.77.0.2", 22), ("10.77.0.2", 8080), ("10.77.0.3", 25)]


def test_a_scan_finds_what_is_there_and_tells_about_it(bench: Bench, network: tuple[str, ...]) -> None:
    ended = bench.run(lan("10.77.0.0/29", "fd00:77::2"), prefix=network)
    assert ended.code == 0, ended.stderr
    assert bench.open() == [*OPEN, ("fd00:77::2", 22)]
    up = ["10.77.0.1", "10.77.0.2", "10.77.0.3", "fd00:77::2"]
    assert [host.address for host in bench.found() if host.state == "up"] == up
    assert sum(host.mac != "" for host in bench.found()) == 3
    assert bench.rows("SELECT status, hosts_total, chunks_total, chunks_done FROM runs") == [("finished", 7, 2, 2)]
    assert bench.rows("SELECT engine, degraded FROM runs") == [("syn", "")]
    finished = ended.events["scan_finished"]
    assert finished["message"].startswith("10.77.0.0/29 and 1 more: 4 hosts up, 4 ports open, took ")
    assert finished["data"]["hosts_up"] == 4
    assert ended.last_status == "7 of 7 hosts, 4 open ports, 100 %"
    shown = ended.figures
    assert 0 <= shown.pop("rate") <= 5000
    assert 0 <= shown.pop("loss") < 0.1
    assert shown.pop("seconds_left") >= 0
    assert shown == {
        "hosts_done": 7,
        "hosts_total": 7,
        "chunks_done": 2,
        "chunks_total": 2,
        "hosts_up": 4,
        "ports_open": 4,
        "percent": 100,
        "held": "",
        "phase": "ports",
    }
    assert {"READY": "1"} in ended.notes
    assert bench.heartbeat.exists()


def test_discovery_finds_hosts_and_asks_no_port(bench: Bench, network: tuple[str, ...]) -> None:
    ended = bench.run(lan("10.77.0.2/31", profile="discovery"), prefix=network)
    assert ended.code == 0, ended.stderr
    assert [(host.address, host.ports, host.rest) for host in bench.found()] == [
        ("10.77.0.2", (), ()),
        ("10.77.0.3", (), ()),
    ]


def test_services_are_named(bench: Bench, network: tuple[str, ...]) -> None:
    ended = bench.run(lan("10.77.0.2", ports="22,8080", profile="services"), prefix=network)
    assert ended.code == 0, ended.stderr
    [host] = bench.found()
    assert [(port.number, port.service, port.product, port.version) for port in host.ports] == [
        (22, "ssh", "OpenSSH", "9.2p1 Debian 2"),
        (8080, "http", "nginx", "1.22.1"),
    ]
    with Memory(bench.data / "scan.db") as memory:
        [run] = memory.runs()
        said = b"".join(exporting.raw("lan", run, memory.raw(run.id)))
    scan = nmap.PortScanner.analyse_nmap_xml_scan(nmap.PortScanner.__new__(nmap.PortScanner), said)["scan"]
    assert scan["10.77.0.2"]["tcp"][8080]["extrainfo"] == host.ports[1].extrainfo, "it is nmap's own XML that is kept"
    assert f'version="{run.nmap_version}"'.encode() in said


def test_without_the_right_to_raw_packets_ports_are_asked_by_connect(bench: Bench, network: tuple[str, ...]) -> None:
    ended = bench.run(lan("10.77.0.2/31"), prefix=(*network, "setpriv", "--bounding-set=-net_raw"))
    assert ended.code == 0, ended.stderr
    assert bench.open() == OPEN
    assert bench.rows("SELECT engine FROM runs") == [("connect",)]
    assert ended.stderr == "CAP_NET_RAW is not held: ports are asked by connect, not by SYN packets\n"


def test_nmap_loads_the_hosts_libraries_and_not_those_of_a_bundle(bench: Bench) -> None:
    bundle = ("LD_LIBRARY_PATH=/bundle/lib", "LD_LIBRARY_PATH_ORIG=/opt/lib", "_PYI_ARCHIVE_FILE=/bundle/agentctl")
    frozen = ("env", *bundle, sys.executable, "-c", "import sys; sys.frozen = True; exec(sys.argv[-1])")
    path = bench.fake('env > $HERE/environment; exec "$NMAP" "$@"')
    ended = bench.run(loopback(), path=path, prefix=frozen)
    assert ended.code == 0, ended.stderr
    found = (bench.directory / "fake" / "environment").read_text().splitlines()
    assert not [line for line in found if line.startswith(("LD_LIBRARY_PATH", "_PYI_", "PYTHON"))]


def test_a_name_may_be_excluded_and_the_broadcast_address_of_the_network_always_is(
    bench: Bench, network: tuple[str, ...]
) -> None:
    (bench.directory / "not.txt").write_text("10.77.0.3  # the printer\n")
    targets = lan("10.77.0.2-10.77.0.3", "10.77.0.254/31", "127.0.0.1")
    scan = msgspec.structs.replace(targets, exclude=("localhost", f"file:{bench.directory}/not.txt"))
    ended = bench.run(scan, prefix=(*network, "setpriv", "--bounding-set=-net_raw"))
    assert ended.code == 0, ended.stderr
    assert ended.events["scan_finished"]["data"]["hosts_total"] == 2
    assert [host.address for host in bench.found()] == ["10.77.0.2"]


def test_a_broadcast_address_of_this_host_is_no_target_of_its_own(bench: Bench, network: tuple[str, ...]) -> None:
    ended = bench.run(lan("10.77.0.2", "10.77.0.255"), prefix=network)
    told = "targets: 10.77.0.255 is a broadcast address of this host, which is never scanned; leave it out\n"
    assert (ended.code, ended.stderr) == (1, told)


def test_what_was_scanned_before_a_failure_is_kept_and_the_failure_says_where(bench: Bench) -> None:
    path = bench.fake('echo >> $HERE/calls; [ $(wc -l < $HERE/calls) = 2 ] && exit 9; exec "$NMAP" "$@"')
    ended = bench.run(loopback("127.0.0.0/25"), path=path)
    assert ended.code == 2
    places = "1 of 2 (127.0.0.0 to 127.0.0.63)", "2 of 2 (127.0.0.64 to 127.0.0.127)"
    assert ended.stderr in [f"chunk {place}: nmap failed (exited 9)\n" for place in places]
    assert bench.rows("SELECT status, chunks_done FROM runs") == [("failed", 1)]
    assert len(bench.found()) == 64


# The first two chunks are scanned; the third tells that it is there, and waits.
SLOW = """
echo >> $HERE/calls
[ $(wc -l < $HERE/calls) -gt 2 ] && { echo $$ > $HERE/waiting; exec sleep 60; }
exec "$NMAP" "$@"
"""


def started_slowly(bench: Bench) -> tuple[subprocess.Popen[str], int]:
    """A worker in its third chunk, and the process that stands for nmap there."""
    path = bench.fake(SLOW)
    os.mkfifo(bench.directory / "fake" / "waiting")
    process = bench.start(loopback("127.0.0.0/24"), path=path)
    return process, int((bench.directory / "fake" / "waiting").read_text())


def continued(bench: Bench) -> Ended:
    """Run it again with a real nmap that counts how often it is called."""
    (bench.directory / "fake" / "calls").unlink()
    return bench.run(loopback("127.0.0.0/24"), path=bench.fake('echo >> $HERE/calls; exec "$NMAP" "$@"'))


def test_a_stopped_scan_kills_nmap_and_the_next_one_continues(bench: Bench) -> None:
    process, nmap = started_slowly(bench)
    process.send_signal(signal.SIGTERM)
    ended = bench.finish(process)
    assert (ended.code, ended.stderr) == (0, "")
    assert not Path(f"/proc/{nmap}").exists()
    assert bench.rows("SELECT status, chunks_done FROM runs") == [("interrupted", 2)]
    assert "stopped after 128 of 256 hosts" in ended.events["scan_interrupted"]["message"]

    again = continued(bench)
    assert again.code == 0, again.stderr
    assert len((bench.directory / "fake" / "calls").read_text()) == 2
    assert bench.rows("SELECT status, chunks_done FROM runs") == [("finished", 4)]
    assert len(bench.found()) == 256
    assert again.figures["hosts_up"] == 256


def test_a_killed_scan_is_continued_and_its_nmap_can_be_recognised_and_ends_with_it(bench: Bench) -> None:
    process, nmap = started_slowly(bench)
    mark = f"AGENT_MARK={bench.mark}".encode()
    until(lambda: mark in Path(f"/proc/{nmap}/environ").read_bytes().split(b"\0"))  # empty while it becomes another
    process.kill()
    bench.finish(process)
    until(lambda: not Path(f"/proc/{nmap}").exists())
    again = continued(bench)
    assert again.code == 0, again.stderr
    assert len((bench.directory / "fake" / "calls").read_text()) == 2
    assert bench.rows("SELECT status, chunks_done FROM runs") == [("finished", 4)]


def test_the_heartbeat_goes_on_while_nmap_works(bench: Bench) -> None:
    process, _ = started_slowly(bench)
    while sum("WATCHDOG" in note for note in bench.notes) < 20:
        bench.receive()
    process.terminate()
    assert bench.finish(process).code == 0


CHANGES = {"port_closed", "port_opened", "host_new", "host_gone", "scan_changes"}


def test_what_changed_between_runs_is_told_once_and_what_is_old_is_forgotten(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        scan = msgspec.structs.replace(loopback(), ports=str(port), history=History(raw=0.0), site="here")
        first = bench.run(scan).events["scan_changes"]
        assert first["message"] == "the first scan of this network: 1 port_opened, 1 host_new", "it was looked at twice"
        assert not bench.run(scan).events.keys() & CHANGES
    closed = bench.run(scan).events["port_closed"]
    assert closed["message"] == f"127.0.0.1 tcp/{port} is closed, was open"
    assert {key: closed["data"][key] for key in ("address", "protocol", "port", "old", "new")} == {
        "address": "127.0.0.1",
        "protocol": "tcp",
        "port": port,
        "old": "open",
        "new": "closed",
    }
    captured(bench, "udp/53", time.time_ns() + 10**9)
    ended = bench.run(scan)
    assert ended.events["port_opened"]["message"] == "127.0.0.1 udp/53 is open", "a capture saw it answer"
    assert not bench.run(scan).events.keys() & CHANGES
    with Memory(bench.data / "scan.db") as memory:
        assert [change.kind for change in memory.changes()] == ["host_new", "port_opened", "port_closed", "port_opened"]
        assert {run.site for run in memory.runs()} == {"here"}
        assert [list(memory.raw(run.id)) for run in memory.runs()] == [[]] * 5
        assert memory.runs()[-1].sent > memory.runs()[-2].sent, "the first run asked its port twice"


def captured(bench: Bench, service: str, last: int) -> None:
    """A capture beside the scan saw this service of 127.0.0.1 answer, at last then, in unix nanoseconds."""
    table = Table()
    table.fold([Sighting(0, last, FLOW, 0, "", "127.0.0.1", SERVICE, service)], "lo")
    (bench.directory / "edge").mkdir(exist_ok=True)
    seen = snapshot.entries(table.addresses)
    inventory = snapshot.Snapshot(written=1, counters={}, progress={}, own=[], stations=[], addresses=seen, heard=[])
    snapshot.write(bench.directory / "edge" / snapshot.NAME, inventory)


def test_what_a_capture_saw_since_the_last_run_is_taken_in_before_the_next_one_looks(bench: Bench) -> None:
    scan = loopback()
    assert bench.run(scan).code == 0
    captured(bench, "tcp/2", time.time_ns())
    events = bench.run(scan).events
    assert events["port_opened"]["message"] == "127.0.0.1 tcp/2 is open"
    assert events["port_closed"]["message"] == "127.0.0.1 tcp/2 is closed, was open", "the scan looked after that"
    assert not bench.run(scan).events.keys() & {"port_opened", "port_closed"}
    with Memory(bench.data / "scan.db") as memory:
        told = [(change.kind, change.run, change.source) for change in memory.changes()]
        assert told == [("host_new", 1, ""), ("port_opened", None, "passive"), ("port_closed", 2, "")]


def test_hosts_that_come_and_go_are_told_of_by_the_run_that_finds_out(bench: Bench, network: tuple[str, ...]) -> None:
    def wire(*words: str) -> None:
        subprocess.run(["ip", "-n", network[-1].replace("scan-a", "scan-b"), *words], check=True)

    scan = lan("10.77.0.0/29")
    for _ in range(2):  # what was open twice is known well enough to tell whether the scan sees
        bench.run(scan, prefix=network)
    wire("addr", "del", "10.77.0.3/24", "dev", "wire")
    ended = bench.run(scan, prefix=network)
    assert ended.events["host_gone"]["message"] == "10.77.0.3 does not answer any more"
    assert {"port_closed", "port_filtered", "host_new"}.isdisjoint(ended.events), "one thing happened"
    # It comes back, with another beside it, and from a machine with another MAC, which makes no other host of it.
    wire("link", "set", "wire", "address", "02:00:00:00:77:0b")
    for last in (3, 5):
        wire("addr", "add", f"10.77.0.{last}/24", "dev", "wire")
    ended = bench.run(scan, prefix=network)
    assert "host_gone" not in ended.events
    with Memory(bench.data / "scan.db") as memory:
        told = [[f"{one.kind} {one.address}" for one in memory.changes(run=run)] for run in (3, 4)]
        assert told == [["host_gone 10.77.0.3"], ["host_new 10.77.0.3", "host_new 10.77.0.5"]]
        macs = {host.address: host.mac for host in memory.now()}
        assert {macs[f"10.77.0.{last}"] for last in (2, 3, 5)} == {"02:00:00:00:77:0b"}
    assert bench.open() == OPEN


def test_a_damaged_database_is_moved_aside_and_the_scan_goes_on(bench: Bench) -> None:
    bench.data.mkdir()
    (bench.data / "scan.db").write_bytes(b"garbage" * 1000)
    ended = bench.run(loopback())
    assert ended.code == 0, ended.stderr
    replaced = ended.events["database_replaced"]
    assert Path(replaced["data"]["moved_aside"]).read_bytes() == b"garbage" * 1000
    assert "file is not a database" in replaced["message"]
    assert bench.rows("SELECT status FROM runs") == [("finished",)]


def test_a_second_scan_of_the_same_service_is_refused(bench: Bench) -> None:
    process, _ = started_slowly(bench)
    ended = bench.run(loopback("127.0.0.0/24"))
    assert ended.code == 2
    assert "another scan of this service is running" in ended.stderr
    process.terminate()
    assert bench.finish(process).code == 0


def test_the_worker_never_loads_scapy(bench: Bench) -> None:
    """python-nmap and scapy must not meet in one process: their licences do not go together, nor does their weight."""
    script = (
        "import sys; import agent.workers.scan.worker\n"
        "assert 'nmap' in sys.modules\n"
        "found = {name.partition('.')[0] for name in sys.modules} & {'scapy', 'numpy', 'rich', 'click', 'psutil'}\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, check=True)
