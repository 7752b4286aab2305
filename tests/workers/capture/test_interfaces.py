"""Interfaces by pattern: those that are there, that come, and that go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.workers.capture.lab import Network, by_interface, numbers, refused, worker

SETTINGS = {"budget": 2**28, "rotate": {"size": 2**22, "every": 3600}}


def has_written(interface: str, packets: int, fields: Mapping[str, str]) -> bool:
    """Whether a message of the worker says so."""
    return bool(by_interface(fields).get(interface, {}).get("written") == packets)


def test_what_matches_is_captured_and_what_is_left_out_is_not(tmp_path: Path, net: Network) -> None:
    net.pair("near2", "far2")
    net.pair("near3", "far3")
    with worker(tmp_path, net, **SETTINGS, interfaces=["far*", "!far3"]) as capture:
        for near in ("near", "near2", "near3"):
            net.send(near, 100)
        capture.stop()
        assert numbers(capture.data, "far") == numbers(capture.data, "far2") == list(range(100))
        assert sorted(path.name for path in capture.data.iterdir() if path.is_dir()) == ["far", "far2"]


def test_an_interface_that_comes_is_captured_at_once_and_one_that_goes_is_forgotten(
    tmp_path: Path, net: Network
) -> None:
    with worker(tmp_path, net, **SETTINGS, interfaces=["wg*"]) as capture:
        capture.wait_for(lambda fields: fields.get("STATUS", "").startswith("wg*: 0 packets"), "what it is for")
        assert capture.status().endswith("waiting for wg*")
        for first in (0, 100):
            began = time.monotonic()
            net.pair("near0", "wg0")
            capture.wait_event("interface_found")
            assert time.monotonic() - began < 3  # and not at the next look
            net.send("near0", 100, first=first)
            told = first + 100  # its counts go on where they were
            capture.wait_for(partial(has_written, "wg0", told), f"{told} packets of wg0")
            net.delete("near0")
            capture.wait_event("interface_lost")
            capture.wait_for(lambda fields: fields.get("STATUS", "").endswith("waiting for wg*"), "that it waits")
        capture.stop()
        assert numbers(capture.data, "wg0") == list(range(200))
        assert capture.figures()["written"] == capture.figures()["received"] == 200


def test_no_more_are_captured_than_the_budget_is_enough_for(tmp_path: Path, net: Network) -> None:
    net.pair("near2", "far2")
    net.pair("near3", "far3")
    settings = {"budget": 2 * 600_000, "rotate": {"size": 2**20, "every": 3600}}
    with worker(tmp_path, net, **settings, interfaces=["far*"]) as capture:
        (message,) = [event["message"] for event in capture.told() if event["kind"] == "interfaces_left_out"]
        assert message.endswith(" with this budget: 1 are left out, such as far3")
        capture.stop()


def test_a_bad_filter_is_a_mistake_even_while_nothing_matches(tmp_path: Path, net: Network) -> None:
    status, lines = refused(tmp_path, net, **SETTINGS, interfaces=["wg*"], filter="tcp and prot 80")
    assert (status, lines) == (1, ['filter "tcp and prot 80": syntax error at "prot" (column 9)'])


def test_without_permission_a_pattern_is_no_excuse(tmp_path: Path, net: Network) -> None:
    class Unprivileged(Network):
        def inside(self, *command: str) -> list[str]:
            return super().inside("setpriv", "--bounding-set=-net_raw", *command)

    status, lines = refused(tmp_path, Unprivileged(net.name), **SETTINGS, interfaces=["far*"])
    assert status == 2
    assert lines[-1] == "capturing on far needs CAP_NET_RAW: run as root or with that capability"


def test_what_a_pattern_matches_and_cannot_be_captured_does_not_disturb_the_others(
    tmp_path: Path, net: Network
) -> None:
    net.tunnel("fart")  # no Ethernet header, so that the filter means nothing there
    with worker(tmp_path, net, **SETTINGS, interfaces=["far*"], filter="ether proto 0x88b5") as capture:
        net.send("near", 100)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(100))
        assert capture.events() == ["interface_down"]
