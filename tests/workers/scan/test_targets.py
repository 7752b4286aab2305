"""Which addresses nmap had been given, held against nmap's own reading of the same words."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from xml.etree import ElementTree

import pytest

from agent.workers.scan import targets
from agent.workers.scan.memory.place import Line, place, text
from agent.workers.scan.spans import Ranges
from agent.workers.scan.targets import given


def by_nmap(*words: str) -> tuple[str, int, set[str]]:
    """What a real nmap writes down of its command line, how many addresses it makes of it, and which."""
    family = ["-6"] if ":" in words[0] else []
    done = subprocess.run(["nmap", "-sL", "-n", *family, "-oX", "-", *words], capture_output=True, check=True)
    root = ElementTree.fromstring(done.stdout)
    total = root.find("runstats/hosts")
    assert total is not None
    addresses = {one.get("addr", "") for one in root.iterfind("host/address")}
    return root.get("args", ""), int(total.get("total", "")), addresses


@pytest.mark.parametrize(
    "words",
    [
        ("10.0.0.7",),
        ("10.0.0.0/28", "192.168.1.1"),
        ("10.0.0.3/30",),
        ("10.0.0-1.1,3,250-",),
        ("10.0.0.-3", "10.0.0.2-5"),
        ("10.0.0.0/28", "--exclude", "10.0.0.3,10.0.0.8/30"),
        ("2001:db8::/124", "2001:db8::ff"),
        ("-max-retries", "1", "-oN", "/dev/null", "10.0.0.0/30"),
        ("10.0.0.0/30", "--exclude=10.0.0.1"),
        ("-exclude", "10.0.0.1", "10.0.0.0/30"),
        ("--dns-servers", "10.0.0.1", "10.0.0.0/30"),
        ("-dns-serv", "10.0.0.1", "10.0.0.0/30"),
        ("-S", "10.0.0.9", "-e", "lo", "10.0.0.0/30"),
        ("-S10.0.0.9", "-elo", "-nT", "4", "-v", "10.0.0.0/30", "-d1"),
        ("-D", "10.0.0.5", "-g", "53", "-PS", "10.0.0.0/31"),
        ("--ip-options", "L 10.0.0.1", "--data-string", 'a"\\ 10.0.0.2', "10.0.0.0/31"),
        ("--exclude", "10.0.0.1", "--", "10.0.0.0/30"),
        ("10.0.0.1", "2001:db8::1"),
        ("2001:db8::1", "10.0.0.0/31", "localhost"),
    ],
    ids=" ".join,
)
def test_the_words_of_a_command_line_are_read_as_nmap_reads_them(words: tuple[str, ...]) -> None:
    arguments, total, addresses = by_nmap(*words)
    found = {
        text(line, number)
        for line, ranges in given(arguments, total).items()
        for low, high in ranges
        for number in range(low, high + 1)
    }
    assert {str(ip_address(one)) for one in addresses} == found


@pytest.mark.parametrize(
    "arguments",
    [
        "nmap -iL hosts 10.0.0.1",
        "nmap -S 10.0.0.9 10.0.0.1",
        "nmap example.org",
        "nmap 10.0.0.300 10.0.0.1-2-3 ... 1.2.3 -1.-2.*.,",
        "nmap *.*.*.*",
        "nmap " + "9" * 400,
        "",
    ],
)
def test_words_that_do_not_make_that_many_addresses_are_not_believed(arguments: str) -> None:
    assert given(arguments, 2) == {}
    assert place("10.0.0.1").number in (0x0A000001,)


@pytest.mark.parametrize(
    "arguments",
    [
        "nmap --dns-servers 10.0.0.1 web.example.org",
        "nmap -S 10.0.0.1 web",
        "nmap -D 10.0.0.1 -e eth0 web",
        "nmap -sI 10.0.0.1 web",
        "nmap -b 10.0.0.1 web",
        "nmap --resume 10.0.0.1",
        "nmap --ip-options 10.0.0.1 web",
        "nmap -iR 1 -S 10.0.0.1 1",
        "nmap --of-tomorrow 10.0.0.1",
        "nmap --script-args 'a b' --datadir=10.0.0.1 web",
        'nmap --script-args "unless=10.0.0.1 10.0.0.1 web',
        "nmap -S",
        "nmap -P 10.0.0.1",
    ],
)
def test_the_value_of_an_option_is_no_target(arguments: str) -> None:
    assert given(arguments, 1) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        "nmap 10.0.0.0/30 name --excludefile f",
        "nmap 10.0.0.0/30 name --exclude other",
        "nmap 10.0.0.0/30 name --exclude 10.0.0.1 --exclude 10.0.0.2",
        "nmap -iL f 10.0.0.0/30",
        "nmap -iLf 10.0.0.0/30",
        "nmap -iR4 10.0.0.0/30",
        "nmap --resume f 10.0.0.0/30",
    ],
)
def test_where_addresses_may_be_missing_that_others_make_up_for_nothing_is_believed(arguments: str) -> None:
    assert given(arguments, 4) == {}
    assert given(arguments, 3) == {}


def test_many_ranges_are_not_worked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    read = targets._ranges

    def reading(word: str) -> list[tuple[Line, Ranges]]:
        looked_at.append(word)
        return read(word)

    monkeypatch.setattr(targets, "_ranges", reading)
    assert given(f"nmap 10.0.0.1 --exclude {','.join(['1.*.*.1'] * 1000)}", 1) == {}
    assert given(f"nmap {' '.join(['1.*.*.1'] * 1000)}", 1) == {}
    assert len(looked_at) < 10
    assert given(f"nmap {'10.0.0.1 ' * 30} --exclude 1.0-199.*.1", 30) != {}
    assert given(f"nmap {'10.0.0.1 ' * 3000} --exclude 1.0-199.*.1", 3000) == {}


def test_what_nmap_says_it_skipped_was_not_asked() -> None:
    assert given("nmap 10.0.0.0/31 name", 2, ["name"]) == given("nmap 10.0.0.0/31", 2) != {}
    assert given("nmap 10.0.0.0/31 name", 2, ["10.0.0.1"]) == {}


def test_of_our_own_exports_both_families_are_read() -> None:
    found = given("agentctl scan export xml lab 1 10.0.0.0/31 2001:db8::1", 3)
    assert {line.family for line in found} == {4, 6}
