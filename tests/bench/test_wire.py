"""The wire of the bench: what is sent arrives, and whoever captures is counted the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import captors, traffic
from bench.wire import wire

SENT = 20_000


@pytest.mark.parametrize("kind", [captors.Agent, captors.Tcpdump])
def test_numbered_frames_arrive_and_are_counted(tmp_path: Path, kind: type[captors.Captor]) -> None:
    file = tmp_path / "numbered.pcap"
    traffic.write(file, traffic.numbered(64 * 10))
    with wire() as joined:
        with kind(joined, tmp_path / "captor", captors.RING) as captor:
            sent = joined.send(file, rate=100_000, limit=SENT, numbered=True)
            captor.settle()
        assert (sent.packets, sent.arrived) == (SENT, SENT)
        assert sent.rate < 101_000  # slower on a busy machine, faster never
        assert (captor.written, captor.dropped) == (SENT, 0)
    (stored,) = (path for path in (tmp_path / "captor").rglob("*") if path.name == "packets" or path.suffix == ".pcap")
    assert np.array_equal(traffic.numbers(stored), np.arange(SENT))
