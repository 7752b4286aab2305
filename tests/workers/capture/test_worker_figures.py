"""What a capture worker counts, interface by interface, and that it is what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.linux.process import children_of
from agent.workers.capture import account
from agent.workers.capture.account import Account
from tests.workers.capture.lab import Network, Worker, by_interface, packets, segments, worker

SETTINGS = {"interfaces": ["far", "far2"], "budget": 2**26, "ring": 2**21, "rotate": {"size": 2**24, "every": 3600}}


def until(capture: Worker, condition: Callable[[dict[str, dict[str, Any]]], bool], what: str) -> None:
    capture.wait_for(lambda fields: bool(told := by_interface(fields)) and condition(told), what)


def last(capture: Worker) -> dict[str, dict[str, Any]]:
    """The figures of each interface that were told last."""
    capture.drain()
    return by_interface([fields for fields in capture.messages if "X_INTERFACES" in fields][-1])


def accounts(capture: Worker, interface: str) -> list[Account]:
    found = [account.read(path.with_suffix(".meta")) for path in segments(capture.data, interface)]
    return [told for told in found if told is not None]


def test_each_interface_has_its_own_figures_and_all_together_are_the_services(tmp_path: Path, net: Network) -> None:
    net.pair("near2", "far2")
    with worker(tmp_path, net, **SETTINGS, snaplen=40) as capture:
        net.send("near", 300, size=500)
        net.send("near2", 200, size=30)
        until(capture, lambda told: told["far"]["cut"] == 300 and told["far2"]["written"] == 200, "300 and 200")
        assert last(capture)["far"]["ring"] == last(capture)["far2"]["ring"] == 2**21
        capture.stop()
        told, whole = last(capture), capture.figures()
        assert {name: (one["received"], one["written"], one["cut"], one["waiting"]) for name, one in told.items()} == {
            "far": (300, 300, 300, False),
            "far2": (200, 200, 0, False),
        }
        for name in ("received", "written", "cut", "bytes", "segments", "dropped_kernel", "not_written"):
            assert sum(one[name] for one in told.values()) == whole[name], name
        assert whole["cut"] == sum(
            p.captured < p.original for path in segments(capture.data, "far") for p in packets(path)
        )


def test_cut_packets_are_counted_once_though_the_index_process_is_killed(tmp_path: Path, net: Network) -> None:
    settings = SETTINGS | {"interfaces": ["far"], "snaplen": 40}
    with worker(tmp_path, net, **settings) as capture:
        net.send("near", 100, size=500)
        capture.process.send_signal(signal.SIGUSR1)
        until(capture, lambda told: told["far"]["cut"] == 100, "100 cut")
        net.send("near", 50, size=500)
        until(capture, lambda told: told["far"]["cut"] == 150, "150 cut")
        (index,) = children_of(capture.process.pid)
        os.kill(index, signal.SIGKILL)
        capture.wait_event("companion_ended")
        net.send("near", 7, size=500)
        until(capture, lambda told: told["far"]["cut"] == 157, "157 cut")
        capture.process.kill()
        capture.process.wait()
    with worker(tmp_path, net, **settings) as capture:
        net.send("near", 3, size=500)
        until(capture, lambda told: told["far"]["cut"] == 3, "3 cut: what was there before is not counted")
        capture.stop()
        assert last(capture)["far"]["cut"] == 3


def test_what_the_device_drops_is_in_the_figures_and_in_the_account_of_that_time(tmp_path: Path, net: Network) -> None:
    """The counters are the kernel's files; no device here has buffers that could overflow, so they are mounted over."""
    files = {name: tmp_path / name for name in ("rx_missed_errors", "rx_fifo_errors", "rx_dropped")}

    def count(name: str, value: int) -> None:
        files[name].write_text(f"{value}\n")

    for name in files:
        count(name, 1000)

    class Overlaid(Network):
        def inside(self, *command: str) -> list[str]:
            mounts = [f"mount --bind {path} /sys/class/net/far/statistics/{name}" for name, path in files.items()]
            return super().inside("sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *command)

    with worker(tmp_path, Overlaid(net.name), **SETTINGS | {"interfaces": ["far"]}) as capture:
        net.send("near", 10)
        until(capture, lambda told: told["far"]["written"] == 10, "10 written")
        count("rx_missed_errors", 1030)
        until(capture, lambda told: told["far"]["dropped_interface"] == 30, "30 dropped")
        capture.process.send_signal(signal.SIGUSR1)
        until(capture, lambda told: told["far"]["written"] == 10 and bool(accounts(capture, "far")), "an account")
        count("rx_fifo_errors", 1004)
        count("rx_dropped", 5000)  # such as frames of a VLAN that nobody has: they were captured before
        net.send("near", 5)
        capture.stop()
        assert [told.dropped_interface for told in accounts(capture, "far")] == [30, 4]
        assert capture.figures()["dropped_interface"] == last(capture)["far"]["dropped_interface"] == 34
        assert "34 dropped" in capture.status()


def test_a_reader_that_was_late_is_told_by_the_lag_and_loses_nothing(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS | {"interfaces": ["far"]}) as capture:
        net.send("near", 10)
        until(capture, lambda told: told["far"]["written"] == 10, "10 written")
        assert last(capture)["far"]["lag_max"] < 1
        capture.pause()
        net.send("near", 100)
        time.sleep(1.0)  # the delay itself
        capture.resume()
        until(capture, lambda told: told["far"]["written"] == 110 and 1 <= told["far"]["lag"] < 30, "a lag of a second")
        net.send("near", 1)
        until(capture, lambda told: told["far"]["written"] == 111 and told["far"]["lag"] < 1, "a lag that is over")
        assert last(capture)["far"]["lag_max"] >= 1
        capture.stop()
        (told,) = accounts(capture, "far")
        assert told.lag >= 10**9 and round(told.lag / 1e9, 3) == last(capture)["far"]["lag_max"]
        assert (told.received, told.written, told.dropped_kernel) == (111, 111, 0)


def test_a_kernel_that_counts_other_packets_than_it_delivers_is_told_of(tmp_path: Path, net: Network) -> None:
    """strace(1) makes the next reading of the kernel's counters say that three more packets were received."""
    three = (3).to_bytes(4, "little") + bytes(4)  # tp_packets, tp_drops of struct tpacket_stats_v3, linux/if_packet.h
    with worker(tmp_path, net, **SETTINGS | {"interfaces": ["far"]}) as capture:
        command = ["strace", "-qq", "-p", str(capture.process.pid), "-e", "trace=getsockopt", "-o", "/dev/null"]
        with subprocess.Popen([*command, "-e", f"inject=getsockopt:poke_exit=@arg4={three.hex()}:when=1"]) as tracer:
            until(capture, lambda told: told["far"]["received"] == 3, "3 received")
            tracer.terminate()
        net.send("near", 100)
        until(capture, lambda told: told["far"]["written"] == 100, "100 written")
        capture.process.send_signal(signal.SIGUSR1)
        event = capture.wait_event("packets_unaccounted")
        assert event["message"] == "far: 3 packets were received but never delivered"
        net.send("near", 10, first=100)
        capture.stop()
        told = accounts(capture, "far")
        assert [(one.received, one.written, one.unaccounted) for one in told] == [(103, 100, 3), (10, 10, 0)]
        assert capture.figures()["unaccounted"] == last(capture)["far"]["unaccounted"] == 3
        assert capture.events() == ["packets_unaccounted"]
