"""``agentctl top`` in a pipe: what is printed, as text and as JSON. (On a terminal: tests/acceptance/test_top.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from tests.cli.served import Served
from tests.workers.flows import traffic
from tests.workers.flows.traffic import NOON

QUICK = ("--interval", "200ms")


def top(prefix: Path, *arguments: str) -> int:
    return main(["--prefix", str(prefix), "top", *QUICK, *arguments])


def test_services_are_shown_with_the_figures_of_their_workers(
    prefix: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"received": 900, "rate": 321.0, "dropped_kernel": 4, "dropped_interface": 2, "not_written": 1}
    figures |= {"lag": 0.25, "ring": 1 << 24, "ring_packets": 17, "store_bytes": 3 << 20, "index_waiting": 2}
    served.declare("edge", kind="capture", figures=figures)
    served.declare("broken", state="failed", pid=None, ready=False, message="\x1b[31mno\n")
    assert top(prefix) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("agent running, up ") and lines[0].endswith(", 321 packets/s, 7 dropped")
    edge = next(line.split() for line in lines if line.startswith("edge"))
    assert edge[:9] == ["edge", "running", "321", "7", "0", "250", "ms", "17", "16.0"]
    assert next(line.split()[:3] for line in lines if line.startswith("broken")) == ["broken", "failed", "-"]


def test_as_json_each_look_is_a_line(prefix: Path, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.declare("edge", kind="capture", figures={"received": 1, "dropped_kernel": 3})
    assert top(prefix, "--json", "--count", "2") == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [look["services"][0]["dropped"] for look in looks] == [3, 3]
    assert all(look["services"][0]["dropped_per_second"] == 0 and 0 < look["seconds"] < 20 for look in looks)
    assert looks[1]["at"] > looks[0]["at"]


def test_each_interface_has_what_the_capture_tells_of_it_even_before_anything_is_stored(
    prefix: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"received": 9, "dropped_kernel": 4, "dropped_interface": 2, "not_written": 1, "lag": 0.25, "ring": 1 << 24}
    told |= {"ring_packets": 17, "cut": 3, "waiting": False}
    served.declare("edge", kind="capture", figures={"received": 9}, interfaces={"eth0": told, "wg0": {"waiting": True}})
    assert top(prefix, "--json") == 0
    eth0, wg0 = json.loads(capsys.readouterr().out)["interfaces"]
    assert {name: eth0[name] for name in told} == told
    assert (eth0["dropped"], eth0["dropped_per_second"], wg0["waiting"]) == (7, 0, True)
    assert top(prefix) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["eth0", "edge", "-", "-", "7", "0", "250", "ms", "17", "16.0", "MiB", "3", "-", "-"] in lines


def test_without_an_agent_it_is_told_from_the_stores(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (closed,) = traffic.store(prefix / "spool" / "edge", "eth0", [traffic.mixed(1, 5, NOON)])
    closed.rename(closed.with_suffix(".part"))
    assert top(prefix, "--once") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no agent answers; this is from the stores alone"
    assert any(line.split()[:4] == ["eth0", "edge", "0", "0"] for line in lines)


def test_services_and_interfaces_can_be_chosen(
    prefix: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served.declare("edge", kind="capture", figures={"received": 1})
    served.declare("web")
    for name in ("eth0", "eth1"):
        (closed,) = traffic.store(prefix / "spool" / "edge", name, [traffic.mixed(1, 5, NOON)])
        closed.rename(closed.with_suffix(".part"))
    assert top(prefix, "--json", "--service", "edge", "--interface", "eth1") == 0
    look = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in look["services"]] == ["edge"]
    assert [one["interface"] for one in look["interfaces"]] == ["eth1"]
    assert top(prefix, "--json", "--service", "web") == 0
    assert json.loads(capsys.readouterr().out)["interfaces"] == []
    assert top(prefix, "--service", "egde") == 1
    assert capsys.readouterr().err == "agentctl: no service is named 'egde'; did you mean edge?\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--once", "--count", "2"), "--once is --count 1"),
        (("--interval", "1ms"), "200ms"),
        (("--count", "0"), "0"),
    ],
)
def test_what_cannot_be_is_refused(
    prefix: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert top(prefix, *arguments) == 1
    assert said in capsys.readouterr().err
