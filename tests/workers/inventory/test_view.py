"""Hosts out of what was folded: one for each MAC, one for each address without; and addresses that move."""

from __future__ import annotations

from agent.workers.inventory.sighting import NAME, ROLE, SERVICE, Sighting
from agent.workers.inventory.table import Table
from agent.workers.inventory.view import Former, Host, Source, hosts

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def seen(*told: Sighting, interface: str = "eth0", service: str = "edge", own: tuple[str, ...] = ()) -> Source:
    table = Table()
    table.fold(told, interface)
    return Source(service, table, own)


def at(time: int, mac: str = "", address: str = "", fact: str = "", value: str = "", **more: object) -> Sighting:
    usual = {"source": "arp" if not fact else "dhcp", "vlan": 0, "asker": ""} | more
    return Sighting(time, time, usual["source"], usual["vlan"], mac, address, fact, value, usual["asker"])  # type: ignore[arg-type]  # by name


def addresses(host: Host) -> list[str]:
    return [holding.address for holding in host.addresses]


def test_a_host_is_a_mac_with_all_its_addresses_and_what_is_told_of_them() -> None:
    (host,) = hosts(
        [
            seen(
                at(1, A, "10.0.0.1"),
                at(2, A, "fe80::1"),
                at(3, A, "fd00::1"),
                at(9, "", "10.0.0.1", SERVICE, "tcp/443", source="flow"),
                at(8, "", "fd00::1", SERVICE, "tcp/80", source="flow"),
                at(4, A, "", NAME, "web"),
            )
        ]
    )
    assert addresses(host) == ["10.0.0.1", "fd00::1", "fe80::1"]
    assert [told.value for told in host.facts[SERVICE]] == ["tcp/80", "tcp/443"]
    assert (host.mac, host.name, host.first, host.last, host.seen_by) == (A, "web", 1, 9, ["edge/eth0"])


def test_an_address_without_a_mac_is_a_host_of_its_own() -> None:
    (host,) = hosts([seen(at(9, "", "198.51.100.1", SERVICE, "tcp/443", source="flow"))])
    assert (host.mac, addresses(host)) == ("", ["198.51.100.1"])


def test_the_same_address_on_another_vlan_is_not_that_mac() -> None:
    found = hosts([seen(at(1, A, "10.0.0.1"), at(2, "", "10.0.0.1", SERVICE, "tcp/22", source="flow", vlan=7))])
    assert [(host.mac, host.seen_by) for host in found] == [("", ["edge/eth0.7"]), (A, ["edge/eth0"])]


def test_an_address_that_moves_is_that_of_who_claimed_it_last_and_the_others_are_remembered() -> None:
    told = (at(1, A, "10.0.0.1"), at(5, A, "10.0.0.1"), at(7, B, "10.0.0.1"), at(8, "", "10.0.0.1", SERVICE, "tcp/22"))
    without, owner = sorted(hosts([seen(*told)]), key=lambda host: host.mac)
    assert addresses(without) == []
    (holding,) = owner.addresses
    assert holding.former == [Former(A, 1, 5)]
    assert SERVICE in owner.facts


def test_one_host_seen_by_several_captures_is_one() -> None:
    (host,) = hosts(
        [
            seen(at(1, A, "10.0.0.1"), at(3, A, "", NAME, "web")),
            seen(at(4, A, "10.0.0.1"), at(5, A, "", NAME, "web"), interface="eth1", service="core"),
        ]
    )
    assert host.seen_by == ["core/eth1", "edge/eth0"]
    (name,) = host.facts[NAME]
    assert (name.first, name.last) == (3, 5)


def test_a_hosts_own_word_for_its_name_counts_before_what_others_were_told() -> None:
    (host,) = hosts(
        [
            seen(
                at(1, A, "10.0.0.1"),
                at(9, "", "10.0.0.1", NAME, "cdn.example", source="tls", asker="10.0.0.7"),
                at(8, "", "10.0.0.1", NAME, "www.lab", source="dns", asker="10.0.0.7"),
                at(3, A, "", NAME, "web"),
            )
        ]
    )
    assert [(told.value, told.asker) for told in host.facts[NAME]] == [
        ("web", ""),
        ("www.lab", "10.0.0.7"),
        ("cdn.example", "10.0.0.7"),
    ]


def test_hearsay_alone_makes_no_host() -> None:
    assert hosts([seen(at(1, "", "10.0.0.1", NAME, "www", source="dns", asker="10.0.0.7"))]) == []


def test_this_machine_is_told_by_its_mac_its_addresses_or_a_loopback_address() -> None:
    told = (at(1, A, "10.0.0.1"), at(1, B, "10.0.0.2"), at(1, "", "127.0.0.1", SERVICE, "tcp/22"))
    far = at(1, "", "198.51.100.1", ROLE, "dhcp server")
    found = {host.mac or addresses(host)[0]: host.own for host in hosts([seen(*told, far, own=(A, "10.0.0.2"))])}
    assert found == {A: True, B: True, "127.0.0.1": True, "198.51.100.1": False}


def test_hosts_come_by_address_and_those_without_any_last() -> None:
    told = (
        at(1, A),
        at(1, B, "10.0.0.10"),
        at(1, "", "10.0.0.9", ROLE, "dhcp server"),
        at(1, "", "fd00::1", ROLE, "router"),
    )
    assert [addresses(host) for host in hosts([seen(*told)])] == [["10.0.0.9"], ["10.0.0.10"], ["fd00::1"], []]
