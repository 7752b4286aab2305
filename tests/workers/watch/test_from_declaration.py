"""What drift takes from the declaration: addresses in place of names, ports one by one, weights."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from agent.declaration.model import Declared, Expect, ExpectedPorts
from agent.workers.watch.expectation import Span, Wanted
from agent.workers.watch.from_declaration import AGAIN, PATIENCE, PAUSE, Names, Unresolved, expectation, services


def test_hosts_are_named_or_of_a_network() -> None:
    made = expectation(
        Expect("lan", ("10.0.0.1", "10.1.0.0/24", "10.2.0.1-10.2.0.3", "fe80::1%eth0", "localhost")), Names()
    )
    assert {"10.0.0.1", "fe80::1%eth0", "127.0.0.1"} <= made.named
    assert not {"10.2.0.1", "10.1.0.0"} & made.named
    assert {ip_network("10.1.0.0/24"), ip_network("10.2.0.2/31"), ip_network("fe80::1")} <= {*made.networks}


def test_ports_are_expected_one_by_one_and_of_a_long_range_only_allowed() -> None:
    made = expectation(
        Expect(
            "lan",
            ("10.0.0.1",),
            (ExpectedPorts("tcp", 22, 23, "ssh", "9.*"), ExpectedPorts("tcp", 30000, 40000)),
            (ExpectedPorts("udp", 1, 65535),),
            others=False,
            severity="err",
        ),
        Names(),
    )
    assert made.open == (Wanted("tcp", 22, "ssh", "9.*"), Wanted("tcp", 23, "ssh", "9.*"))
    assert made.allowed == (Span("tcp", 30000, 40000),)
    assert made.closed == (Span("udp", 1, 65535),)
    assert (made.others, made.weight) == (False, 1)


def test_a_name_without_an_address_is_told_in_one_line() -> None:
    with pytest.raises(Unresolved, match=r"^nowhere\.invalid cannot be resolved: .+$"):
        expectation(Expect("lan", ("nowhere.invalid",)), Names())


def test_a_name_is_resolved_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    names = Names(lambda: now[0])
    first = names.addresses("localhost")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.9.9.9", 0))])
    now[0] = AGAIN - 1
    assert names.addresses("localhost") == first
    now[0] = AGAIN
    assert names.addresses("localhost") == ["10.9.9.9"]


def test_name_servers_that_say_nothing_are_not_waited_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    asked: list[str] = []

    def silent(name: str, *_: object, **__: object) -> list[object]:
        asked.append(name)
        now[0] += PATIENCE
        raise OSError(-3, "Temporary failure in name resolution")

    names = Names(lambda: now[0])
    known = names.addresses("localhost")
    monkeypatch.setattr("socket.getaddrinfo", silent)
    now[0] = AGAIN
    assert names.addresses("localhost") == known  # it is where it was
    for name in ("a.example", "b.example"):
        with pytest.raises(Unresolved, match=f"^{name} cannot be resolved: no name server answered just now$"):
            names.addresses(name)
    assert asked == ["localhost"]
    now[0] += PAUSE
    with pytest.raises(Unresolved, match="Temporary failure in name resolution"):
        names.addresses("a.example")


def test_services_are_declared_where_they_run_all_the_time_and_say_where_they_listen() -> None:
    declared = [
        Declared("api", "command", listens="8000-8001,udp/53"),
        Declared("off", "command", enabled=False, listens="1"),
        Declared("job", "command", job=True, listens="2"),
        Declared("quiet", "command"),
        Declared("wide", "command", listens="10000-60000"),
    ]
    assert [(one.service, one.protocol, one.port) for one in services(declared)] == [
        ("api", "tcp", 8000),
        ("api", "tcp", 8001),
        ("api", "udp", 53),
    ]
