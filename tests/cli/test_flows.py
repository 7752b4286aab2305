"""``agentctl flows``: what is shown and exported, and what is said of what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from tests.workers.flows import traffic
from tests.workers.flows.peers import free_port, nfcapd
from tests.workers.flows.traffic import NOON, SECOND, Packet

SPAN = ("--from", "2026-11-20T14:00Z", "--to", "2026-11-20T14:10Z")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix with two stores: ``edge`` with a conversation a minute, ``lab`` with a ping."""
    packets = [
        packet
        for minute in range(5)
        for packet in traffic.conversation(
            NOON + minute * 60 * SECOND, "10.0.0.9", 40000 + minute, "10.0.0.1", 443, 1000
        )
    ]
    traffic.store(tmp_path / "spool" / "edge", "eth0", [packets[:18], packets[18:]])
    traffic.store(tmp_path / "spool" / "lab", "eth1", [[Packet(NOON, traffic.icmp("10.1.0.1", "10.1.0.2", 8))]])
    (tmp_path / "spool" / "agent").mkdir()
    return tmp_path


def flows(prefix: Path, *arguments: str) -> int:
    return main(["--prefix", str(prefix), "flows", *arguments])


def answer(prefix: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert flows(prefix, *arguments, "--json") == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_table_says_who_and_how_much_and_when(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flows(prefix, *SPAN, "--service", "edge") == 0
    head, first, second, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["HOST", "BYTES", "PACKETS", "OUT", "IN", "FLOWS", "PEERS"]
    assert first.split()[0] == "10.0.0.1" and second.split()[0] == "10.0.0.9"
    assert first.split()[-2:] == ["10", "1"]
    assert total.endswith(": 10 flows, 45 packets, 7.84 KiB")


@pytest.mark.parametrize(
    ("by", "first"),
    [
        ("pair", "10.0.0.1  10.0.0.9"),
        ("port", "tcp/443"),
        ("proto", "tcp"),
        ("flow", "10.0.0.1:443    10.0.0.9:40000  tcp"),
    ],
)
def test_it_can_be_added_up_in_other_ways(
    prefix: Path, capsys: pytest.CaptureFixture[str], by: str, first: str
) -> None:
    assert flows(prefix, *SPAN, "--by", by) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(first)


def test_as_json_all_of_it_is_there(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(prefix, capsys, *SPAN, "--by", "port", "tcp")
    assert {key: found[key] for key in ("by", "sort", "expression", "flows", "packets", "unindexed_bytes")} == {
        "by": "port",
        "sort": "bytes",
        "expression": "tcp",
        "flows": 10,
        "packets": 45,
        "unindexed_bytes": 0,
    }
    assert found["top"] == [
        {
            "protocol": "tcp",
            "port": 443,
            "bytes": 5 * (9 * 54 + 1120),
            "packets": 45,
            "bytes_out": 5 * (4 * 54 + 1000),
            "bytes_in": 5 * (5 * 54 + 120),
            "packets_out": 20,
            "packets_in": 25,
            "flows": 10,
            "servers": 1,
            "clients": 1,
        }
    ]


def test_options_may_stand_before_and_after_the_words_of_an_expression(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (("host", "10.1.0.1"), ("top", "host 10.1.0.1"), ("--top", "1", "host", "10.1.0.1")):
        found = answer(prefix, capsys, *arguments, *SPAN)
        assert found["packets"] == 1


def test_a_service_and_an_interface_can_be_chosen(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(prefix, capsys, *SPAN)["packets"] == 46
    assert answer(prefix, capsys, *SPAN, "--service", "lab")["packets"] == 1
    assert answer(prefix, capsys, *SPAN, "--interface", "eth0")["packets"] == 45


WRONG = [
    (
        ("--service", "edje"),
        1,
        "no capture is named 'edje'; did you mean edge?",
    ),
    (("--interface", "eth7"), 1, "no interface is named 'eth7'; did you mean eth1?"),
    (("tcp prot 80",), 1, 'filter "tcp prot 80": syntax error at "prot" (column 5)'),
    (("--last", "soon"), 1, None),
    (
        ("--by", "flow", "--sort", "flows"),
        1,
        "--by flow has one flow in each row; write --sort bytes or --sort packets",
    ),
    (("export",), 1, "where to? write --ipfix HOST:PORT, or -o FILE for lines of JSON; -o - is standard output"),
    (("export", "-o", "-", "--ipfix", "a:1"), 1, "--ipfix and -o are two ways to go; write one of them"),
    (("export", "--ipfix", "a"), 1, None),
    (("export", "--ipfix", "a:0"), 1, '"a:0" is not a collector; ports go from 1 to 65535'),
    (("export", "--ipfix", "no.such.invalid:1"), 2, None),
    (
        ("export", "-o", "/nowhere/flows.jsonl"),
        2,
        "/nowhere/flows.jsonl: cannot be written: No such file or directory",
    ),
    (("export", "--idle", "0s", "-o", "-"), 1, None),
]


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG, ids=lambda value: None)
def test_what_cannot_be_is_told_in_one_line(
    prefix: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str | None
) -> None:
    assert flows(prefix, *arguments) == code
    shown = capsys.readouterr()
    assert not shown.out
    assert len(shown.err.splitlines()) == 1 and "Traceback" not in shown.err
    if said is not None:
        assert shown.err == f"agentctl: {said}\n"


def test_a_collector_that_does_not_listen_is_told_of(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert flows(prefix, "export", *SPAN, "--ipfix", f"127.0.0.1:{port}") == 2
    assert capsys.readouterr().err == f"agentctl: collector 127.0.0.1:{port}: nobody listens on that port\n"


def test_an_expression_is_read_though_nothing_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flows(tmp_path, "nonsense here") == 1
    assert capsys.readouterr().err.startswith('agentctl: filter "nonsense here": ')


def test_nothing_in_the_span_is_said_to_be_nothing(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flows(prefix, "--last", "10m") == 0
    assert capsys.readouterr().out.startswith("no such packets are stored from ")
    found = answer(prefix, capsys, "--last", "10m")
    assert (found["packets"], found["top"]) == (0, [])


def test_the_store_of_a_newer_program_is_left_alone(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (prefix / "spool" / "edge" / "store.json").write_text('{"version": 9}')
    assert flows(prefix, *SPAN) == 0
    shown = capsys.readouterr()
    assert "10.1.0.1" in shown.out and "10.0.0.1" not in shown.out
    (line,) = shown.err.splitlines()
    assert "the store is of version 9" in line
    assert flows(prefix, "--service", "edge") == 1
    assert line == capsys.readouterr().err.rstrip()
    assert answer(prefix, capsys, *SPAN)["unreadable"] == [line.removeprefix("agentctl: ")]


def test_what_is_no_capture_is_named_on_stderr(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = prefix / "spool" / "edge" / "eth0" / "20261120T140000.000001Z.pcap"
    broken.write_bytes(b"\n" * 100)
    assert flows(prefix, *SPAN) == 0
    assert capsys.readouterr().err == f"agentctl: {broken}: it is no pcap file\n"


def test_flows_are_exported_as_lines(prefix: Path, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    file = tmp_path / "flows.jsonl"
    assert flows(prefix, "export", *SPAN, "-o", str(file)) == 0
    assert capfdbinary.readouterr().out == f"{file}: 11 flow records\n".encode()
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert sum(line["packets"] for line in lines) == 46
    assert {line["reason"] for line in lines} == {"end", "idle"}
    assert flows(prefix, "export", *SPAN, "-o", "-") == 0
    assert capfdbinary.readouterr().out == file.read_bytes()


def test_timeouts_divide_flows_into_records(prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = traffic.udp("10.0.0.1", 1, "10.0.0.2", 2)
    packets = [Packet(NOON + second * SECOND, frame) for second in range(0, 300, 20)]
    traffic.store(tmp_path / "other" / "spool" / "edge", "eth0", [packets[:5], packets[5:10], packets[10:]])
    file = tmp_path / "flows.jsonl"
    for timeouts, expected in (((), 1), (("--idle", "10s"), 15), (("--active", "100s"), 2)):
        assert flows(tmp_path / "other", "export", *SPAN, "-o", str(file), *timeouts, "--json") == 0
        assert json.loads(capsys.readouterr().out)["records"] == expected


def test_flows_are_exported_to_a_real_collector(
    prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nfcapd(tmp_path / "nf") as collector:
        target = f"127.0.0.1:{collector.port}"
        assert flows(prefix, "export", "tcp", *SPAN, "--ipfix", target) == 0
        assert capsys.readouterr().out.startswith(f"{target}: 10 flow records in ")
        found = collector.flows()
    assert (len(found), sum(flow.packets for flow in found)) == (10, 45)
    assert sum(flow.octets for flow in found) == 5 * (9 * 40 + 1120)


def test_help_tells_of_both_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flows", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "  top " in shown and "  export " in shown
