"""The addresses of this machine, as ip(8) has them."""

from __future__ import annotations

import json

from agent.workers.inventory.local import own
from agent.workers.inventory.sighting import station, unicast
from tests.workers.inventory.lab import run


def test_they_are_those_that_ip_shows() -> None:
    shown = json.loads(run("ip", "-json", "address"))
    expected = {unicast(address["local"]) for link in shown for address in link["addr_info"]}
    assert "127.0.0.1" in expected
    named = {address["local"] for link in shown for address in link["addr_info"]} | {link["address"] for link in shown}
    macs = {station(link["address"]) for link in shown if link.get("link_type") == "ether" and link["addr_info"]}
    assert set(own()) >= (expected | macs) - {""}
    assert set(own()) <= {text for name in named for text in (unicast(name), station(name))}
