"""Interfaces that go, come back, or are not up yet."""

from __future__ import annotations

from pathlib import Path

from tests.workers.capture.lab import Network, numbers, worker

SETTINGS = {"interfaces": ["far"], "budget": 2**26, "rotate": {"size": 2**22, "every": 3600}}


def test_an_interface_that_is_deleted_and_made_again_is_captured_again(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 500)
        net.delete("near")
        capture.wait_event("interface_lost")
        net.pair("near", "far")
        capture.wait_event("interface_back")
        net.send("near", 500, first=500)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(1_000))
        figures = capture.figures()
        assert figures["received"] == figures["written"] == 1_000


def test_an_interface_that_is_down_for_a_while_goes_on_where_it_was(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 500)
        net.down("far")
        net.up("far")
        net.send("near", 500, first=500)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(1_000))


def test_an_interface_that_is_not_up_yet_is_waited_for(tmp_path: Path, net: Network) -> None:
    net.pair("near2", "far2", up=False)
    with worker(tmp_path, net, **(SETTINGS | {"interfaces": ["far", "far2"]})) as capture:
        assert capture.events() == ["interface_down"]
        net.send("near", 100)
        assert capture.wait_figure("written", 100)
        assert capture.status().endswith(", waiting for far2")
        net.up("near2")
        net.up("far2")
        capture.wait_event("interface_back")
        net.send("near2", 100)
        capture.stop()
        assert numbers(capture.data, "far2") == numbers(capture.data, "far") == list(range(100))


def test_one_interface_that_goes_does_not_disturb_another(tmp_path: Path, net: Network) -> None:
    net.pair("near2", "far2")
    with (
        worker(tmp_path, net, **(SETTINGS | {"interfaces": ["far", "far2"]})) as capture,
        net.start_sending("near", 10_000) as sender,
    ):
        net.delete("far2")
        capture.wait_event("interface_lost")
        assert sender.wait(20) == 0
        capture.stop()
        assert numbers(capture.data, "far") == list(range(10_000))


def test_an_interface_replaced_by_another_of_its_name_is_opened_anew(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        for first in range(0, 300, 100):
            net.send("near", 100, first=first)
            net.delete("near")
            net.pair("near", "far")
            capture.wait_event("interface_back")
        net.send("near", 100, first=300)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(400))
        assert capture.events() == ["interface_lost", "interface_back"] * 3


def test_stopping_while_an_interface_is_gone_is_clean(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 100)
        net.delete("near")
        assert capture.stop() < 1.0
        assert numbers(capture.data, "far") == list(range(100))


def test_all_interfaces_at_once_can_be_captured(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **(SETTINGS | {"interfaces": ["any"]})) as capture:
        net.send("near", 100)
        capture.stop()
        figures = capture.figures()
        assert figures["written"] >= 200  # out of one, in at the other
        assert figures["not_written"] == 0
        assert capture.events() == []


def test_an_interface_that_comes_back_as_something_else_is_reported_and_tried_again(
    tmp_path: Path, net: Network
) -> None:
    with worker(tmp_path, net, **(SETTINGS | {"filter": "ether proto 0x88b5"})) as capture:
        net.send("near", 10)
        net.delete("near")
        capture.wait_event("interface_lost")
        net.tunnel("far")  # no Ethernet header, so that the filter means nothing
        event = capture.wait_event("interface_down")
        assert event["message"].startswith('far: filter "ether proto 0x88b5": ')
        net.delete("far")
        net.pair("near", "far")
        capture.wait_event("interface_back")
        net.send("near", 10, first=10)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(20))
