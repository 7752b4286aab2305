"""Which ports are asked to see whether the way is open, counted on the wire; and what silence at others says."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from agent.declaration.model import Engine
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench
from tests.workers.scan.test_blind_paths import DNS, SSH, cut, remember, scan
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


def test_who_is_not_asked_as_it_answers_is_not_gone(net: lab.Network, bench: Bench) -> None:
    """One host says only that a port is closed, and the other answers nothing but a ping: then another port is asked,
    and the right to ping is lost."""
    closed, pinged = "10.97.3.5", "10.97.4.5"
    inside = tuple(net.inside())
    deprived = (*inside, "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    rules = (
        f"ip daddr {closed} tcp dport != 22",
        f"ip daddr {closed} ip protocol != tcp",
        f"ip daddr {pinged} ip protocol tcp",
    )
    with cut(net, *rules):
        for ports, prefix in (("22,443", inside), ("22,443", inside), ("443", deprived), ("443", deprived)):
            service = scan(f"{pinged}/32", closed, ports=ports, engine="connect")
            ended = bench.run(service, prefix=prefix)
            assert ended.code == 0, ended.stderr
            assert ended.events["scan_finished"]["data"]["degraded"] == ""
            assert "host_gone" not in ended.events
    assert bench.rows("SELECT run, count(*) FROM seen GROUP BY run") == [(1, 2), (2, 2)]
    assert bench.rows("SELECT id FROM runs WHERE loss IS NULL") == [(3,), (4,)], "where nobody answered"
    assert bench.rows("SELECT address, discovery FROM hosts ORDER BY place") == [(closed, ""), (pinged, "raw")]
    assert bench.rows("SELECT kind, address FROM changes ORDER BY address") == [
        ("host_new", closed),
        ("host_new", pinged),
    ]
