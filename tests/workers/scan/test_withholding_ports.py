"""Which ports are asked to see whether the way is open, counted on the wire."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from agent.declaration.model import Engine
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench
from tests.workers.scan.test_blind_paths import DNS, SSH, remember, scan
from tests.workers.scan.truth import INTERFACE, of_kind
from tests.workers.scan.wire import wire


@pytest.mark.parametrize("engine", ["syn", "connect"])
def test_only_ports_that_are_declared_now_are_asked(net: lab.Network, bench: Bench, engine: Engine) -> None:
    """Though lower ones were known to be open for longer, and somebody else's has closed and is looked at twice."""
    many = of_kind("many services")[0].address
    service = scan(many, SSH[0], DNS[0], ports="7000,7002,udp/54", engine=engine)
    known: dict[str, Sequence[tuple[str, int]]] = {
        many: [("tcp", 7001), ("tcp", 7002)],
        SSH[0]: [("tcp", 22), ("tcp", 7002)],
        DNS[0]: [("udp", 53)],
    }
    remember(bench, service, known)
    with wire(net.near, INTERFACE) as seen:
        ended = bench.run(msgspec.structs.replace(service, rate=100), prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    asked = {what for _, what in seen.probes("syn", "udp")}
    assert asked == {"syn 7000", "syn 7002", "udp 54"}
    probes = seen.probes("syn")
    assert probes[many, "syn 7002"] > probes[many, "syn 7000"], "it is the canary"
    rows = bench.rows("SELECT address, port FROM changes WHERE run = 3 AND kind = 'port_closed'")
    assert rows == [(SSH[0], 7002)], "by the second look"
