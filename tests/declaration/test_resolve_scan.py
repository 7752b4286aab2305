"""A scan as a whole: its targets together, its profile, and what it has from tables of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from agent.declaration.model import Declaration, History, Scan, Scanning
from agent.errors import DeclarationError

Read = Callable[..., Declaration]

SCAN = '[service.x]\nkind = "scan"\n'


def problems(read: Read, text: str, files: Mapping[str, str] = {}) -> list[str]:
    with pytest.raises(DeclarationError) as error:
        read(text, files=files)
    return [str(problem).removeprefix("/k/env.toml:") for problem in error.value.problems]


def scan(read: Read, text: str, files: Mapping[str, str] = {}) -> Scan:
    service = read(text, files=files).services["x"]
    assert isinstance(service, Scan)
    return service


def scan_targets(read: Read, text: str, files: Mapping[str, str] = {}) -> tuple[str, ...]:
    return scan(read, text, files).targets


def test_all_keys_of_a_scan_arrive_in_the_model(read: Read) -> None:
    text = f"""
    {SCAN}
    targets = ["10.0.0.0/24", "10.0.1.1-50", "NAS.example.org", "file:/k/hosts.txt"]
    exclude = ["10.0.0.7", "printer"]
    ports = "1-1024,udp/53,shop,top-100"
    profile = "full"
    scripts = ["ssh-hostkey", "http-title"]
    engine = "connect"
    retries = 0
    rate = 9
    window = ["22:00-6:00", "sat,sun 00:00-24:00"]
    site = "berlin"
    history = {{ max_age = "30d", size = "2GiB", raw = "0s" }}
    silent_again = "1d"
    [ports]
    shop = "9000-9003,udp/9000"
    [scanning]
    rate = 5000
    network_rate = 900
    target_rate = 100
    """
    found = scan(read, text, {"hosts.txt": "10.9.0.1\n"})
    assert found.targets == ("10.0.0.0/24", "10.0.1.1-10.0.1.50", "nas.example.org", "file:/k/hosts.txt")
    assert found.exclude == ("10.0.0.7", "printer")
    assert found.ports == "1-1024,9000-9003,udp/53,udp/9000,top-100"
    assert (found.profile, found.scripts) == ("full", ("ssh-hostkey", "http-title"))
    assert (found.engine, found.retries, found.rate) == ("connect", 0, 9)
    assert found.window == ("22:00-06:00", "Sat,Sun 00:00-24:00")
    assert (found.site, found.silent_again) == ("berlin", 86_400.0)
    assert found.history == History(30 * 86_400.0, 2 * 1024**3, 0.0)
    assert found.budget == Scanning(5000, 900, 100)


def test_what_is_left_out_has_sane_defaults(read: Read) -> None:
    found = scan(read, f'{SCAN}targets = ["10.0.0.1"]\nwindow = "22:00-06:00"\n[agent]\nserver = "hel1"')
    assert (found.site, found.engine, found.budget, found.history) == ("hel1", "auto", Scanning(), History())
    assert found.window == ("22:00-06:00",)


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        ('targets = ["no such host"]', ['"no such host" is no address, network, range or name; write one such as']),
        ('targets = ["0.0.0.0/0"]', ["0.0.0.0/0 holds unspecified, which is never scanned", "42949672"]),
        ('targets = ["10.0.0.0/12"]', ["1048574 addresses are too many; one scan takes at most 65536"]),
        (
            'targets = ["10.0.0.0-10.15.66.63"]',  # a million
            ["1000000 addresses are too many; one scan takes at most 65536"],
        ),
        (
            'targets = ["10.0.0.1-20", "10.0.0.15"]\nexclude = ["10.0.0.0-10.0.0.9", "10.0.0.10-30"]',
            ["leaves nothing to scan"],
        ),
        (
            'targets = ["10.0.0.0/24", "10.0.0.255"]',
            ["10.0.0.255 is the broadcast address of 10.0.0.0/24, which is never scanned; leave it out"],
        ),
        ('targets = ["255.255.255.255"]', ["255.255.255.255 is broadcast, which is never scanned; leave it out"]),
        ('targets = ["224.0.0.1-9"]', ["224.0.0.1-224.0.0.9 holds multicast, which is never scanned; leave it out"]),
        (
            'targets = ["10.0.0.0/24", "10.0.0.0", "10.0.0.5", "169.254.128.0/17", "169.254.170.2", "fe80::a9fe:a9fe"]',
            [
                "10.0.0.0 is the network address of 10.0.0.0/24, which is never scanned; leave it out",
                "169.254.170.2 is the metadata service of a cloud, which is never scanned; leave it out",
                "fe80::a9fe:a9fe is the metadata service of a cloud, which is never scanned; leave it out",
            ],
        ),
        (
            'targets = ["fe80::1", "fe80::2%eth0", "fe80::/120"]\nexclude = ["fe80::9", "fe80::a-f"]',
            [
                "fe80::/120 holds link-local addresses; name each by itself, with its interface: fe80::1%eth0",
                "fe80::1 is link-local; name its interface: fe80::1%eth0",
            ],
        ),
        (
            'targets = ["100.100.100.200"]\nallow_public = ["100.64.0.0/10"]',
            ["100.100.100.200 is the metadata service of a cloud, which is never scanned; leave it out"],
        ),
        ('targets = ["10.255.255.250-11.0.0.5"]', ["10.255.255.250-11.0.0.5 is public; only scan what is yours"]),
        ('targets = ["10.0.0.1"]\nallow_public = ["example.org"]', ['"example.org" is no address, network, range']),
        ('targets = ["10.0.0.1"]\nports = "webb"', ['"webb" is neither a port nor a set of ports; did you mean web?']),
        ('targets = ["10.0.0.1"]\nscripts = ["ssh-hostkey"]', ["the profile ports runs no scripts; leave them out or"]),
        (
            'targets = ["10.0.0.1"]\nprofile = "full"\nscripts = ["a", "a"]',
            ['"a" stands there twice'],
        ),
        ('targets = ["10.0.0.1"]\nsilent_again = "1d"', ["the profile ports asks no port what it is; write profile ="]),
        (
            'targets = ["10.0.0.1"]\nprofile = "discovery"\nports = 22\nretries = 1\nengine = "syn"',
            [
                "the profile discovery looks at no ports; leave them out",
                "the profile discovery has no retries; leave",
                "the profile discovery has no engine; leave",
            ],
        ),
        ('targets = ["10.0.0.1"]\nretries = 11', ["11 is not a whole number, from 0 to 10"]),
        ('targets = ["10.0.0.1"]\nengine = "sin"', ['"sin" is not one of auto, connect, syn; did you mean syn?']),
        ('targets = ["10.0.0.1"]\nwindow = []', ["an empty list is not a window of time or a list of them"]),
        ('targets = ["10.0.0.1"]\nwindow = "22-6"', ['"22-6" is not a window of time; write one such as']),
        ('targets = ["10.0.0.1"]\nsite = "a b"', ['"a b" is not the name of a site; use letters, digits, dots']),
    ],
)  # fmt: skip
def test_a_mistake_in_a_scan_is_one_clear_line(read: Read, keys: str, messages: list[str]) -> None:
    found = [text.partition(": ")[2].partition(": ")[2] for text in problems(read, SCAN + keys)]
    assert [text[: len(message)] for text, message in zip(found, messages, strict=True)] == messages


def test_what_overlaps_counts_once(read: Read) -> None:
    assert scan_targets(read, f'{SCAN}targets = ["10.0.0.0/16", "10.0.0.0/17", "10.0.5.1-99", "10.0.5.7"]')
    assert problems(read, f'{SCAN}targets = ["10.0.0.0/16", "a", "b", "c"]') == [
        "3: service.x.targets: 65537 addresses are too many; one scan takes at most 65536"
    ]


def test_the_broadcast_address_of_a_point_to_point_network_is_a_host(read: Read) -> None:
    assert scan_targets(read, f'{SCAN}targets = ["10.0.0.0/31", "10.0.0.1"]')


def test_a_range_that_is_allowed_may_be_scanned(read: Read) -> None:
    assert scan_targets(read, f'{SCAN}targets = ["8.8.8.1-8"]\nallow_public = ["8.8.8.0-8.8.8.3", "8.8.8.4-8.8.8.9"]')


def test_the_targets_of_a_file_are_judged_as_if_they_stood_there(read: Read) -> None:
    text = f'{SCAN}targets = ["file:/k/hosts.txt"]'
    assert scan_targets(read, text, {"hosts.txt": "# ours\n10.0.0.1-50  # desks\n\nnas.example.org\n"})
    for content, message in {
        "10.0.0.1\n8.8.8.8\n": "/k/hosts.txt:2: 8.8.8.8 is public; only scan what is yours, and then name it in "
        "allow_public too",
        "10.0.0.1\n-oN /tmp/x\n": '/k/hosts.txt:2: "-oN /tmp/x" is no address, network, range or name; write one such '
        'as "10.20.0.0/24", "10.20.0.1-50" or "nas.example.org"',
        "file:/etc/hosts\n": "/k/hosts.txt:1: a file of targets names no further file",
        "# nobody\n": "/k/hosts.txt names no target",
        "10.0.0.0/12": "1048574 addresses are too many; one scan takes at most 65536",
        "10.0.0.255\n10.0.0.0/24\n": "/k/hosts.txt:1: 10.0.0.255 is the broadcast address of 10.0.0.0/24, which is "
        "never scanned; leave it out",
        "10.0.0.1\n" * 65_537: "/k/hosts.txt:65537: 65537 lines are too many; write at most 65536",
    }.items():
        assert problems(read, text, {"hosts.txt": content}) == [f"3: service.x.targets: {message}"]
    assert problems(read, text) == ["3: service.x.targets: /k/hosts.txt does not exist"]


def test_a_file_may_exclude(read: Read) -> None:
    text = f'{SCAN}targets = ["10.0.0.1-3"]\nexclude = ["file:/k/not.txt"]'
    assert scan_targets(read, text, {"not.txt": "10.0.0.1\n10.0.0.2"})
    assert problems(read, text, {"not.txt": "10.0.0.1-2\n10.0.0.3"}) == ["4: service.x.exclude: leaves nothing to scan"]


def test_a_file_with_nothing_right_in_it_is_told_in_a_few_lines(read: Read) -> None:
    found = problems(read, f'{SCAN}targets = ["file:/k/x"]', {"x": "?\n" * 1000})
    assert len(found) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scanning = 5", "1: scanning: 5 is not a table; write [scanning]"),
        ("[scanning]\nrate = 0", "2: scanning.rate: 0 is not a whole number of packets per second, from 1 to 1000000"),
        ("[scanning]\nrates = 5", "2: scanning.rates: unknown key; did you mean rate?"),
        ("ports = 80", "1: ports: 80 is not a table; write [ports]"),
        ("[ports]\nweb = 80", "2: ports.web: web is a set of the program's own; choose another name"),
        ("[ports]\nmine = 80\nours = \"mine\"", '3: ports.ours: "mine" is neither a port nor a set of ports; '),
        ("[ports]\nmine = []", '2: ports.mine: an empty list is not ports such as "8080,8443,udp/5060"'),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_of_all_scans_is_one_clear_line(read: Read, text: str, message: str) -> None:
    (found,) = problems(read, text)
    assert found[: len(message)] == message


def test_the_budget_and_the_sets_are_of_the_host_and_no_project_has_them(read: Read) -> None:
    project = "[ports]\nx = 1\n[scanning]\nrate = 1\n[notify.x]\nemail = 'root'\n"
    with pytest.raises(DeclarationError) as error:
        read("", files={"projects/web.toml": project})
    told = "a project declares services and what is expected; move this to env.toml"
    assert [str(problem) for problem in error.value.problems] == [
        f"/k/projects/web.toml:1: ports: {told}",
        f"/k/projects/web.toml:3: scanning: {told}",
        f"/k/projects/web.toml:5: notify: {told}",
    ]
