"""What nmap is asked about which hosts, and what its answers come to."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.argv import target_list
from agent.workers.scan.detect import (
    CONNECTIONS,
    GROUP_HOSTS,
    GROUP_PORTS,
    PortKey,
    affordable,
    askable,
    at_length,
    better,
    cost,
    parts,
    settled,
    tasks,
    told,
    unknown,
)
from agent.workers.scan.found import Certificate, Host, Port, Rest, Script

addresses = st.sampled_from(
    [*(f"10.0.0.{number}" for number in range(40)), "fd00::1", "fd00::2", "fe80::1%eth0", "fe80::1%eth1"]
)
keys = st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(1, 65535))
several = st.sampled_from([frozenset({("tcp", 22)}), frozenset({("tcp", 22), ("tcp", 80)}), frozenset({("udp", 53)})])
wanted = st.dictionaries(addresses, several | st.frozensets(keys, max_size=400), max_size=40)


@settings(deadline=None, max_examples=50)
@given(wanted)
def test_every_port_of_every_host_is_asked_for_once(what: dict[str, frozenset[PortKey]]) -> None:
    made = tasks("light", what)
    asked = Counter((address, key) for task in made for address in task.addresses for key in task.ports)
    assert asked == Counter((address, key) for address, some in what.items() for key in some)
    for task in made:
        assert len(task.addresses) <= GROUP_HOSTS
        assert len(task.addresses) * len(task.ports) <= GROUP_PORTS or len(task.addresses) == 1
        assert len({(":" in address, address.partition("%")[2]) for address in task.addresses}) == 1
        for line in target_list(task.addresses).decode().splitlines():
            ip_address(line)


@settings(deadline=None, max_examples=50)
@given(wanted)
def test_parts_ask_for_the_same_until_a_port_is_alone(what: dict[str, frozenset[PortKey]]) -> None:
    for task in tasks("deep", what):
        left = task.addresses[len(task.addresses) // 3 :]
        todo, alone, steps = list(parts(task, left)), Counter[tuple[str, PortKey]](), 0
        if not todo:
            assert len(left) <= 1
            assert len(task.ports) == 1
        while todo:
            part = todo.pop()
            assert len(part.addresses) == 1 or len(left) == 1
            steps += 1
            if smaller := parts(part, part.addresses):
                todo += smaller
            else:
                alone.update((address, key) for address in part.addresses for key in part.ports)
        assert not steps or alone == Counter((address, key) for address in left for key in task.ports)


def test_hosts_with_the_same_ports_are_asked_together() -> None:
    web = frozenset({("tcp", 80), ("tcp", 443)})
    made = tasks("light", {"10.0.0.1": web, "10.0.0.2": frozenset({("tcp", 22)}), "10.0.0.3": web})
    assert [task.addresses for task in made] == [("10.0.0.1", "10.0.0.3"), ("10.0.0.2",)]
    assert [task.ask.intensity for task in made] == [2, 2]
    assert tasks("deep", {"10.0.0.1": web})[0].ask.intensity == 7


def test_few_ports_are_asked_at_length_each_alone_and_many_together() -> None:
    few, many = [("tcp", number) for number in range(1, 4)], [("udp", number) for number in range(1, 30)]
    assert [task.ports for task in at_length({"10.0.0.1": few})] == [(key,) for key in few]
    assert [task.ports for task in at_length({"10.0.0.1": many})] == [tuple(many)]
    assert at_length({}) == []


def test_a_port_that_many_have_is_asked_at_length_together() -> None:
    key = ("tcp", 7)
    made = at_length({f"10.0.0.{number}": [key, ("tcp", 100 + number)] for number in range(1, 21)})
    assert [len(task.addresses) for task in made if task.ports == (key,)] == [16, 4]
    assert sum(len(task.addresses) for task in made) == 40


@settings(deadline=None, max_examples=30)
@given(wanted, st.integers(1, 300))
def test_every_port_is_asked_at_length_once(what: dict[str, frozenset[PortKey]], most: int) -> None:
    asked = Counter(
        (address, key) for task in at_length(what, most_ports=most) for address in task.addresses for key in task.ports
    )
    assert asked == Counter((address, key) for address, some in what.items() for key in some)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 10_000), wanted)
def test_a_run_costs_a_target_no_more_than_a_second_allows(rate: int, what: dict[str, frozenset[PortKey]]) -> None:
    for task in tasks("light", what, most_ports=affordable("light", rate)):
        assert cost(task) <= max(rate, CONNECTIONS["light"])


def host(*ports: Port, rest: tuple[Rest, ...] = (), address: str = "10.0.0.1") -> Host:
    return Host(address, "up", "echo-reply", ports=ports, rest=rest)


def test_an_operating_system_is_guessed_with_a_closed_port() -> None:
    closed = host(rest=(Rest("tcp", "closed", "reset", ((9100, 9100), (9200, 9300))),))
    (task,) = tasks("light", {"10.0.0.1": {("tcp", 22)}}, beside={"10.0.0.1": closed}, scripts=("/x/scripts/a.nse",))
    assert task.ask.system
    assert task.ask.tcp == ((22, 22), (9200, 9200))
    assert task.limit > tasks("light", {"10.0.0.1": {("tcp", 22)}})[0].limit


def test_what_may_be_asked_is_open_and_no_printer() -> None:
    ports = (Port("tcp", 22, "open", "x"), Port("tcp", 23, "closed", "x"), Port("tcp", 9100, "open", "x"))
    assert askable(host(*ports, Port("udp", 9100, "open", "x"), Port("sctp", 7, "open", "x"))) == (
        ("tcp", 22),
        ("udp", 9100),
    )


SWEPT = Port("tcp", 22, "open", "syn-ack", ttl=63)


def test_nmap_says_what_a_port_is_and_the_sweep_whether_it_is_open() -> None:
    nmap = Port("tcp", 22, "open", "conn-refused", "ssh", "OpenSSH", "9.2", tunnel="", method="probed", ttl=0)
    assert told(SWEPT, nmap) == Port(
        "tcp", 22, "open", "syn-ack", "ssh", "OpenSSH", "9.2", tunnel="", method="probed", ttl=63
    )
    closed = told(SWEPT, Port("tcp", 22, "closed", "reset", "ssh", method="table"))
    assert (closed.state, closed.reason, closed.service) == ("open", "syn-ack; nmap: closed (reset)", "")
    wrapped = told(SWEPT, Port("tcp", 22, "open", "syn-ack", "tcpwrapped", method="probed"))
    assert (wrapped.state, wrapped.reason, wrapped.service) == ("open", "syn-ack; nmap: tcpwrapped", "")


def test_a_second_run_adds_and_takes_nothing_away() -> None:
    certificate = Certificate("ab")
    light = Port("tcp", 443, "open", "x", "http", method="probed", certificate=certificate, scripts=(Script("a", "b"),))
    deep = Port("tcp", 443, "open", "x", "https", method="table", fingerprint="SF")
    both = better(light, deep)
    assert (both.service, both.method, both.certificate, both.fingerprint) == ("http", "probed", certificate, "SF")
    found = better(light, Port("tcp", 443, "open", "x", "http", "nginx", method="probed"))
    assert (found.product, found.certificate, found.scripts) == ("nginx", certificate, light.scripts)
    assert better(light, Port("tcp", 443, "filtered", "no-response")) == light
    assert unknown(light)
    assert not unknown(found)
    assert not unknown(Port("tcp", 1, "closed", "reset"))


def test_remarks_stand_beside_the_reason_and_nothing_else_changes() -> None:
    before = host(SWEPT, Port("tcp", 23, "open", "syn-ack"), rest=(Rest("tcp", "closed", "reset", ((1, 21),)),))
    after = settled(before, {}, {("tcp", 23): "says nothing"}, system=("Linux",))
    assert [port.reason for port in after.ports] == ["syn-ack", "syn-ack; says nothing"]
    assert (after.rest, after.os, after.address) == (before.rest, ("Linux",), before.address)
