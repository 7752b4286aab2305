"""Where the packets that a query found go: a file, standard output, or lines for a person."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import IO, Any, Protocol

from agent import __version__
from agent.cli.text import safe
from agent.errors import UsageError
from agent.workers.capture.savefile import file_header, snapshot_length
from agent.workers.retrieval import pcapng
from agent.workers.retrieval.answer import Answer, accounts
from agent.workers.retrieval.merge import Run
from agent.workers.retrieval.search import Batch


class Writer(Protocol):
    """Takes runs of packets."""

    def write(self, run: Run) -> None:
        """These packets come next."""

    def end(self) -> None:
        """There are no more."""


class Savefile:
    """A pcap file. Raises ``UsageError`` when packets of several link types would have to go into it."""

    def __init__(self, stream: IO[bytes], answer: Answer) -> None:
        self._stream = stream
        types = answer.link_types()
        if len(set(types.values())) > 1:
            each = ", ".join(f"{name}: {number}" for name, number in sorted(types.items()))
            raise UsageError(
                f"pcap holds packets of one link type, and these are of several ({each}); "
                "name an --interface, or leave out --format pcap"
            )
        link_type = next(iter(types.values()), 1)
        stream.write(file_header(link_type))

    def write(self, run: Run) -> None:
        self._stream.write(run.batch.stretch(run.begin, run.end))

    def end(self) -> None:
        pass


class Pcapng:
    """A pcapng file with what was asked, the names of interfaces, and what the captures know of drops."""

    def __init__(self, stream: IO[bytes], answer: Answer, question: str) -> None:
        self._stream = stream
        self._answer = answer
        self._numbers: dict[tuple[str, str, int], int] = {}
        kernel = os.uname()
        stream.write(
            pcapng.section(question, kernel.machine, f"{kernel.sysname} {kernel.release}", f"agentctl {__version__}")
        )

    def write(self, run: Run) -> None:
        source, link_type = run.batch.source, run.batch.link_type
        key = (source.service, source.interface, link_type)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            told = source.account()
            chosen = told.filter if told else ""
            snaplen = snapshot_length(source.header)
            self._stream.write(
                pcapng.interface(source.interface, f"capture {source.service}", link_type, snaplen, chosen)
            )
        self._stream.write(pcapng.packets(number, run.batch, run.begin, run.end))

    def end(self) -> None:
        known = accounts(self._answer.sources())
        for (service, interface, _), number in self._numbers.items():
            told = known.get((service, interface))
            if told:
                counted = pcapng.Statistics(
                    min(each.opened for each in told),
                    max(each.closed for each in told),
                    sum(each.received for each in told),
                    sum(each.dropped_kernel for each in told),
                    sum(each.dropped_interface for each in told),
                )
                comment = (
                    f"of the {len(told)} closed segments that were searched, not of the packets in this file alone"
                )
                self._stream.write(pcapng.statistics(number, counted, comment))


class Lines:
    """A line for each packet on standard output."""

    def __init__(self, *, several: bool) -> None:
        from agent.workers.retrieval.summary import line, summary

        self._several = several
        self._told: Callable[[int, bytes], str] = lambda link_type, data: line(summary(link_type, data))

    def write(self, run: Run) -> None:
        print("\n".join(self._line(run.batch, number) for number in range(run.begin, run.end)))

    def end(self) -> None:
        pass

    def _line(self, batch: Batch, number: int) -> str:
        seconds, nanoseconds = divmod(batch.times[number], 1_000_000_000)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        place = f"{batch.source.service}/" if self._several else ""
        _, length, data = batch.packet(number)
        told = self._told(batch.link_type, data)
        return safe(f"{when}.{nanoseconds // 1000:06d} {place}{batch.source.interface} {told} {length}")


class Documents:
    """Packets as they go into JSON: ``packets`` is the list of them."""

    def __init__(self) -> None:
        from agent.workers.retrieval.summary import document

        self.packets: list[dict[str, Any]] = []
        self._document = document

    def write(self, run: Run) -> None:
        source, link_type = run.batch.source, run.batch.link_type
        for number in range(run.begin, run.end):
            self.packets.append(self._document(source.service, source.interface, link_type, run.batch.packet(number)))

    def end(self) -> None:
        pass
