"""Which addresses nmap had been given, held against nmap's own reading of the same words."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from xml.etree import ElementTree

import pytest

from agent.workers.scan.memory.place import place, text
from agent.workers.scan.targets import given


def by_nmap(*words: str) -> tuple[str, int, set[str]]:
    """What a real nmap writes down of its command line, how many addresses it makes of it, and which."""
    family = ["-6"] if any(":" in word for word in words) else []
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
        "nmap -S 10.0.0.9 10.0.0.1-2",
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
