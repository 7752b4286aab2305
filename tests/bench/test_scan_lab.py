"""The network that everything else is measured on is what it says: somebody else's scanner finds the same."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

import pytest

from tests.workers.scan import lab
from tests.workers.scan.truth import FAR_HOSTS, GONE, HOSTS, LOCAL, Truth, of_kind

States = dict[str, dict[int, str]]
ASKED = sorted({port for host in HOSTS for port in host.tcp} | {1, 9999, 60000})


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Network]:
    with lab.network(tmp_path_factory.mktemp("lab")) as made:
        yield made


def nmap(net: lab.Network, hosts: Sequence[Truth], *options: str) -> States:
    """The state of each port that is told of by itself; those of 0 are what is said of the rest."""
    command = net.inside("nmap", "-n", "-Pn", "-oX", "-", *options, *(host.address for host in hosts))
    done = subprocess.run(command, capture_output=True, check=True, timeout=lab.PATIENCE)
    found: States = {}
    for host in ET.fromstring(done.stdout).iter("host"):
        address = next(each.attrib["addr"] for each in host.iter("address") if each.attrib["addrtype"] != "mac")
        states = {int(port.attrib["portid"]): port.find("state").attrib["state"] for port in host.iter("port")}  # type: ignore[union-attr]  # nmap's DTD says it is there
        found[address] = {0: "|".join(sorted(each.attrib["state"] for each in host.iter("extraports"))), **states}
    return found


def test_every_port_of_the_link_is_what_it_is_said_to_be(net: lab.Network) -> None:
    four = [host for host in HOSTS if ":" not in host.address]
    found = nmap(net, four, "-sS", "-T4", "--max-retries", "1", "-p", ",".join(map(str, ASKED)))
    for host in four:
        others = "filtered" if host.rest in ("filtered", "rejected") else host.rest
        states = {port: found[host.address].get(port, found[host.address][0]) for port in ASKED}
        assert states == {port: "open" if port in host.tcp else others for port in ASKED}, host


def test_who_has_only_version_6_answers_there(net: lab.Network) -> None:
    six = [host for host in HOSTS if ":" in host.address]
    found = nmap(net, [*six, LOCAL], "-6", "-sS", "-p", ",".join(map(str, ASKED)))
    for host in (*six, LOCAL):
        states = found[host.address.partition("%")[0]]
        assert {port for port, state in states.items() if state == "open"} == host.open


def test_the_way_delays_as_it_should_and_what_it_loses_is_not_there(net: lab.Network) -> None:
    delays = {}
    for host in (FAR_HOSTS[0], FAR_HOSTS[3]):
        said = lab.run(*net.inside("ping", "-c", "2", "-i", "0.01", host.address))
        delays[host.address] = [float(each) for each in re.findall(r"time=([\d.]+) ms", said)]
    assert all(each >= 10 for each in delays["10.98.0.1"])
    assert all(each >= 200 for each in delays["10.98.0.4"])
    lossy = of_kind("10 ms away, loses 5 % each way")[0]
    said = lab.run(*net.inside("ping", "-q", "-i", "0.002", "-c", "100", "-W", "0.1", lossy.address))
    lost = float(re.search(r"([\d.]+)% packet loss", said)[1])  # type: ignore[index]  # ping says it always
    assert 0 < lost < 30


def test_nobody_answers_where_nobody_is_and_everybody_in_the_large_network(net: lab.Network) -> None:
    assert nmap(net, [GONE], "-sS", "-p", "22") == {}
    said = lab.run(*net.inside("nmap", "-n", "-sn", lab.MANY_PREFIX))
    assert "4096 hosts up" in said
    assert "1 received" in lab.run(*net.inside("ping", "-c", "1", "10.97.18.33"))
    with pytest.raises(OSError, match="ping"):
        lab.run(*net.inside("ping", "-c", "1", "-W", "0.2", "10.97.18.34"))


def test_the_dns_servers_answer_a_question_and_no_other_port_does(net: lab.Network) -> None:
    dns = of_kind("dns")
    for states in nmap(net, dns, "-sU", "-p", "53,9999").values():
        assert states == {0: "", 53: "open", 9999: "closed"}
