"""What the page says of scans: every promise with whether it was kept, and every row in which nmap is ahead."""

from __future__ import annotations

import dataclasses
from collections import Counter

from bench import scan_report as report
from bench.report import MIB
from bench.scan import ROWS
from bench.scan_kills_report import Kill, Kind, Sent, by_chance, repeated
from bench.scan_method import METHOD, MISSING
from bench.scan_peers import read_masscan, read_nmap, read_rustscan
from bench.scan_report import NMAP, RUSTSCAN, TITLES, US, Figures, Found, Outcome
from bench.scanners import joined

HUNDRED = frozenset(Found("10.98.0.1", port, "") for port in range(1, 101))
NAMED = frozenset(Found("10.99.0.1", port, "ssh") for port in range(1, 81))
OURS = {"ports": 4.0, "loss": 15.0, "cap": 14.0, "silent": 12.0, "services": 20.0, "discovery": 0.5, "crowd": 0.5}
THEIRS = {"ports": 5.0, "loss": 400.0, "cap": 13.0, "silent": 247.0, "services": 60.0, "discovery": 0.5, "crowd": 0.5}


def outcome(who: str, seconds: float, found: frozenset[Found]) -> Outcome:
    return Outcome(who, seconds, 1.0, True, found)


TWICE: dict[Kind, float] = {"discovery": 0.0, "sweep": 0.3, "services": 0.5}


def kept() -> Figures:
    """Figures with which each promise is kept, and nobody is ahead."""
    made = Figures(versions={}, memory=(50 * MIB, 30 * MIB), kills=[Kill("syn", TWICE, complete=True)])
    made.questions = [("all hosts", 0.05), ("canaries", 0.001)]
    for row in TITLES:
        found = NAMED if row in ("silent", "services") else HUNDRED
        theirs = frozenset([*found][:50]) if row == "cap" else found
        made.runs[row] = [{US: outcome(US, OURS[row], found), NMAP: outcome(NMAP, THEIRS[row], theirs)}]
        made.truth[row] = made.runs[row][0][US].places
    quiet = frozenset(("10.99.0.1", port) for port in range(81, 121))
    made.speaking = made.truth["silent"]
    made.truth["silent"] |= quiet
    made.runs["silent"] = [
        {who: dataclasses.replace(each, silent=quiet) for who, each in made.runs["silent"][0].items()}
    ]
    made.everyone = outcome(US, 25.0, NAMED)
    return made


def broken(figures: Figures) -> list[str]:
    """Which promises are not kept."""
    return [row[0] for row in report.targets(figures) if row[3] != "yes"]


def changed(row: str, **ours: object) -> Figures:
    figures = kept()
    (outcomes,) = figures.runs[row]
    figures.runs[row] = [{**outcomes, US: dataclasses.replace(outcomes[US], **ours)}]  # type: ignore[arg-type]  # as told
    return figures


def test_everything_kept_is_said_to_be_so() -> None:
    assert broken(kept()) == []
    assert [*report.ahead_of_us(kept())] == []
    assert "- nowhere" in report.render(kept())


def test_each_promise_can_be_broken() -> None:
    assert broken(changed("ports", seconds=4.4)) == [f"ports per second, {TITLES['ports']}"]
    assert broken(changed("loss", seconds=20.1)) == [TITLES["loss"]]
    assert broken(changed("silent", seconds=20.1)) == [TITLES["silent"]]
    assert broken(changed("services", seconds=30.1)) == [TITLES["services"]]
    for row in ("discovery", "crowd"):
        assert broken(changed(row, seconds=0.56)) == [TITLES[row]]
    for row in ("ports", "loss", "cap", "discovery", "crowd"):
        assert broken(changed(row, found=frozenset([*HUNDRED][:99]))) == [f"of them found, {TITLES[row]}"]
    less = frozenset([*NAMED][:79])
    assert broken(changed("silent", found=less)) == ["of them named"]
    some = frozenset([("10.99.0.1", 81)])
    assert broken(changed("silent", silent=some)) == ["silent ones of them quarantined"]
    assert broken(changed("silent", silent=some | kept().truth["silent"])) == ["silent ones of them quarantined"]
    assert broken(changed("services", found=less)) == ["findings that nmap has and we have not"]
    assert broken(dataclasses.replace(kept(), memory=(61 * MIB, 30 * MIB))) == ["memory (PSS) meanwhile, nmap included"]
    slow = dataclasses.replace(kept(), questions=[("quick", 0.01), ("slow", 0.1)])
    assert broken(slow) == ["questions about 1,000 scans of 1,000 hosts"]


def test_all_hosts_of_the_link_are_to_take_no_longer_than_nmap_takes_without_the_endless_ones() -> None:
    late = dataclasses.replace(kept(), everyone=outcome(US, 30.1, NAMED))
    assert broken(late) == ["with the two that nmap does not end on"]
    less = dataclasses.replace(kept(), everyone=outcome(US, 25.0, frozenset([*NAMED][:79])))
    assert broken(less) == ["findings that we then have not"]


def test_a_kill_that_costs_too_much_is_told() -> None:
    def after(kill: Kill, differ: float = 0.0) -> list[str]:
        return broken(dataclasses.replace(kept(), kills=[kept().kills[0], kill], differ=differ))

    dear = Kill("syn", {**TWICE, "services": 0.8}, complete=True)
    assert after(Kill("syn", TWICE, complete=False)) == ["kills after which the scan is complete"]
    assert after(dear) == ["probes sent twice because of one kill, at most"]
    assert after(dear, differ=0.2) == []
    assert after(Kill("syn", TWICE, complete=True, closing=1)) == ["events of a port closed or a host gone"]


def test_what_is_sent_twice_is_counted_in_hosts() -> None:
    once: Sent = Counter({("a", "sweep"): 200, ("b", "sweep"): 200, ("a", "services"): 10, ("a", "discovery"): 2})
    before: Sent = Counter({("a", "sweep"): 150, ("a", "services"): 10, ("c", "services"): 1})
    after: Sent = Counter({("a", "sweep"): 250, ("b", "sweep"): 300, ("a", "services"): 20, ("c", "services"): 7})
    assert repeated(before, once, once) == {"discovery": 0, "sweep": 0, "services": 0}
    assert repeated(before, after, once) == {"discovery": 0, "sweep": 0.25, "services": 2}
    assert repeated(after, after + Counter({("a", "sweep"): 50}), once)["sweep"] == 0.25
    assert by_chance(after, once) == 0.25 + 0.5 + 1


def test_a_finding_is_a_port_and_whatever_was_learned_of_it() -> None:
    def run(*found: Found) -> Outcome:
        return outcome(US, 1.0, frozenset(found))

    ssh = Found("a", 22, "ssh", "OpenSSH", "9.2")
    assert report.lacking(run(ssh), run(ssh)) == set()
    assert report.lacking(run(ssh), run(Found("a", 22, "ssh"))) == set()
    assert report.lacking(run(Found("a", 22, "ssh")), run(ssh)) == {ssh}
    assert report.lacking(run(Found("a", 22, "ssh", "Dropbear", "9.2")), run(ssh)) == {ssh}
    assert report.lacking(run(), run(ssh)) == {ssh}
    unknown, wrapped = Found("a", 22), Found("a", 22, "tcpwrapped")
    assert report.lacking(run(unknown), run(wrapped)) == set()
    assert report.lacking(run(ssh), run(unknown)) == set()


def test_where_somebody_is_ahead_is_said() -> None:
    assert [*report.ahead_of_us(changed("ports", seconds=6.0))] == [f"- seconds, {TITLES['ports']}: nmap 5.0; we 6.0"]
    made = kept()
    made.runs["ports"].append({US: outcome(US, 4.0, HUNDRED), RUSTSCAN: outcome(RUSTSCAN, 3.0, HUNDRED)})
    assert [*report.ahead_of_us(made)] == [f"- seconds, {TITLES['ports']}: RustScan 3.0; we 4.0"]
    fewer = changed("ports", found=frozenset([*HUNDRED][:98]))
    assert [*report.ahead_of_us(fewer)] == [f"- found, {TITLES['ports']}: nmap 100; we 98"]


def test_a_service_is_named_only_by_who_answered() -> None:
    found = frozenset({Found("a", 1, "ssh"), Found("a", 2, ""), Found("a", 3, "tcpwrapped")})
    assert report.identified(outcome(US, 1.0, found)) == {("a", 1)}


def test_ports_are_written_with_ranges() -> None:
    assert joined([5, 1, 2, 3, 9]) == "1-3,5,9"
    assert joined([]) == ""


XML = """<host starttime="1"><status state="up" reason="x"/><address addr="10.0.0.1" addrtype="ipv4"/>
<address addr="02:00:00:00:00:01" addrtype="mac"/><ports><extraports state="closed" count="9"></extraports>
<port protocol="tcp" portid="22"><state state="open" reason="syn-ack"/><service name="ssh" product="OpenSSH"
 method="probed" conf="10"/></port><port protocol="tcp" portid="23"><state state="closed" reason="reset"/></port>
<port protocol="tcp" portid="80"><state state="open" reason="syn-ack"/><service name="http" method="table"/></port>
</ports></host><host><status state="up"/><address addr="fd00::1" addrtype="ipv6"/></host>
<host><status state="down"/><address addr="10.0.0.2" addrtype="ipv4"/></host><host><status state="up"/>"""


def test_nmaps_xml_is_read_as_far_as_it_goes() -> None:
    assert [*read_nmap(XML)] == [
        Found("10.0.0.1", 22, "ssh", "OpenSSH"),
        Found("10.0.0.1", 80),
        Found("fd00::1", 0),
    ]


def test_the_others_are_read_as_they_write() -> None:
    masscan = "Discovered open port 7/tcp on 10.0.0.1     \nDiscovered open port 0/icmp on 10.0.0.2      \nDiscov"
    assert [*read_masscan(masscan)] == [Found("10.0.0.1", 7), Found("10.0.0.2", 0)]
    assert [*read_rustscan("10.0.0.1 -> [7,662]\n10.0.0.2 -> []\n")] == [Found("10.0.0.1", 7), Found("10.0.0.1", 662)]


def test_the_method_is_whole() -> None:
    for there in (False, True):
        text = METHOD.format(
            versions="nmap 7.93",
            missing=MISSING[there],
            rounds=5,
            again=3,
            kills=50,
            runs=1000,
            limit=300.0,
            hangs=60.0,
            rate=8000,
        )
        assert "{" not in text
        assert all(f"*{name}*" in text for name in ROWS if name != "kill")
        assert "*kill -9*" in text
