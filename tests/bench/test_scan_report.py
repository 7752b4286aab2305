"""What the page says of scans: every promise with whether it was kept, and every row in which nmap is ahead."""

from __future__ import annotations

import dataclasses

from bench import scan_report as report
from bench.report import MIB
from bench.scan_method import METHOD
from bench.scan_report import NMAP, TITLES, US, Figures, Found, Kill, Outcome
from bench.scanners import joined, read

HUNDRED = frozenset(Found("10.98.0.1", port, "") for port in range(1, 101))
NAMED = frozenset(Found("10.99.0.1", port, "ssh") for port in range(1, 81))
OURS = {"ports": 4.0, "loss": 15.0, "cap": 14.0, "silent": 12.0, "services": 20.0, "discovery": 0.5, "crowd": 0.5}
THEIRS = {"ports": 5.0, "loss": 400.0, "cap": 13.0, "silent": 247.0, "services": 60.0, "discovery": 0.5, "crowd": 0.5}


def outcome(who: str, seconds: float, found: frozenset[Found]) -> Outcome:
    return Outcome(who, seconds, 1.0, True, found)


def kept() -> Figures:
    """Figures with which each promise is kept, and nobody is ahead."""
    made = Figures(versions={}, memory=50 * MIB, per_host=1000, kills=[Kill(1.0, True, 400, 3, 0)])
    for row in TITLES:
        found = NAMED if row in ("silent", "services") else HUNDRED
        theirs = frozenset([*found][:50]) if row == "cap" else found
        made.runs[row] = [{US: outcome(US, OURS[row], found), NMAP: outcome(NMAP, THEIRS[row], theirs)}]
        made.truth[row] = made.runs[row][0][US].places
    made.speaking = made.truth["silent"]
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
    assert broken(changed("services", found=less)) == ["services that nmap named and we did not"]
    assert broken(dataclasses.replace(kept(), memory=61 * MIB)) == ["memory (PSS) meanwhile, nmap included"]


def test_a_kill_that_costs_too_much_is_told() -> None:
    def after(kill: Kill) -> list[str]:
        return broken(dataclasses.replace(kept(), kills=[kept().kills[0], kill]))

    assert after(Kill(1.0, False, 0, 0, 0)) == ["scans that are complete after kill -9"]
    assert after(Kill(1.0, True, 1001, 2, 0)) == ["probes sent twice, at most"]
    assert after(Kill(1.0, True, 0, 0, 1)) == ["open ports of them said to be closed"]


def test_where_nmap_is_ahead_is_said() -> None:
    assert [*report.ahead_of_us(changed("ports", seconds=6.0))] == [f"- seconds, {TITLES['ports']}: nmap 5.0; we 6.0"]
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
    assert [*read(XML)] == [Found("10.0.0.1", 22, "ssh"), Found("10.0.0.1", 80, ""), Found("fd00::1", 0, "")]


def test_the_method_is_whole() -> None:
    text = METHOD.format(versions="nmap 7.93", rounds=5, again=3, kills=50, limit=400.0, rate=8000)
    assert "{" not in text
    assert all(f"*{name}*" in text for name in (*TITLES, "kill -9"))
