"""What was asked is not asked again, whenever it was broken off, and what was not is."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.scan.argv import TRIES, Probe, probes_of
from agent.workers.scan.rollcall import MOST, Part, RollCall, parts
from agent.workers.scan.trace import Way

SIX = "fd78::1:5"
RAW = probes_of(4, privileged=True)
SAID: dict[Probe, str] = {
    "echo": "SENT (0.1s) ICMP [10.0.0.1 > {} Echo request (type=8/code=0) id=1 seq=0] IP [ttl=50 id=1 iplen=28 ]\n",
    "timestamp": "SENT (0.1s) ICMP [10.0.0.1 > {} Timestamp request (type=13/code=0) id=1 seq=0 ] IP [ttl=50 ]\n",
    "443": "SENT (0.1s) TCP 10.0.0.1:1 > {}:443 S ttl=59 id=1 iplen=44  seq=1 win=1024 <mss 1460>\n",
    "80": "SENT (0.1s) TCP 10.0.0.1:1 > {}:80 A ttl=59 id=1 iplen=40  seq=0 win=1024 \n",
}
ECHO = "RCVD (0.2s) ICMP [{} > 10.0.0.1 Echo reply (type=0/code=0) id=1 seq=0] IP [ttl=64 id=1 iplen=28 ]\n"
ARP = "SENT (0.1s) ARP who-has {} tell 10.0.0.1\n"
NEAR = "RCVD (0.1s) ARP reply {} is-at 02:00:00:00:99:0A\n"


def asked(part: Part) -> Counter[tuple[str, Probe]]:
    """What nmap sends to the addresses of a part if none of them answers."""
    probes = part.probes or RAW
    return Counter({(address, probe): part.tries for address in part.addresses for probe in probes})


@given(
    st.dictionaries(
        st.sampled_from([f"10.0.1.{number}" for number in range(6)]),
        st.dictionaries(st.sampled_from(RAW), st.integers(1, TRIES + 1)),
        max_size=6,
    )
)
def test_with_what_was_sent_each_silent_address_gets_each_probe_as_often_as_by_one_nmap(
    sent: dict[str, dict[Way, int]],
) -> None:
    addresses = [f"10.0.1.{number}" for number in range(6)]
    total: Counter[tuple[str, Probe]] = Counter()
    left = parts(addresses, sent, RAW)
    for part in left:
        assert part.addresses
        assert part.tries == TRIES or len(part.probes) < 2, "nmap would not send all"
        total += asked(part)
    for address in addresses:
        for probe in RAW:
            assert total[address, probe] == max(0, TRIES - sent.get(address, {}).get(probe, 0))
    assert len({(part.probes, part.tries) for part in left}) == len(left)


def test_neighbours_are_asked_by_arp_as_often_as_is_left() -> None:
    sent: dict[str, dict[Way, int]] = {"10.0.1.1": {"arp": 1}, "10.0.1.2": {"arp": 2}}
    assert parts(["10.0.1.1", "10.0.1.2"], sent, RAW) == [Part((), 1, ("10.0.1.1",))]


def test_probes_are_those_that_can_be_sent() -> None:
    assert probes_of(4, privileged=True) == ("echo", "443", "80", "timestamp")
    assert probes_of(6, privileged=True) == ("echo", "443", "80")
    assert probes_of(4, privileged=False) == probes_of(6, privileged=False) == ("443", "80")


def test_it_goes_on_where_it_was_left_whatever_the_pieces(tmp_path: Path) -> None:
    path = tmp_path / "scan" / "discovery"
    roll = RollCall(path, "1 2.5")
    hear, other = roll.listen(), roll.listen()
    one, two = SAID["echo"].format("10.0.1.1").encode(), SAID["443"].format(SIX).encode()
    hear(one[:30])
    other(two[:40])  # each nmap is heard by itself
    hear(one[30:])
    other(two[40:])
    hear((ARP.format("10.0.1.3") + NEAR.format("10.0.1.3") + SAID["80"].format("10.0.1.4")).encode())
    roll.close()
    roll.close()

    again = RollCall(path, "1 2.5")
    near = again.answer("10.0.1.3")
    assert near is not None
    assert (near.reason, near.mac) == ("arp-response", "02:00:00:00:99:0a")
    addresses = ["10.0.1.1", f"{SIX}%eth0", "10.0.1.3", "10.0.1.4"]
    assert again.left(addresses, RAW) == [
        Part(("443", "80", "timestamp"), 2, ("10.0.1.1",)),
        Part(("echo",), 1, ("10.0.1.1",)),
        Part(("echo", "80", "timestamp"), 2, (f"{SIX}%eth0",)),
        Part(("443",), 1, (f"{SIX}%eth0",)),
        Part(("echo", "443", "timestamp"), 2, ("10.0.1.4",)),
        Part(("80",), 1, ("10.0.1.4",)),
    ]
    again.discard()
    again.discard()
    assert not path.exists()


@settings(deadline=None)
@given(st.integers(0, 500))
def test_notes_that_were_cut_short_count_to_their_last_whole_line(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    path = tmp_path_factory.mktemp("roll") / "discovery"
    roll = RollCall(path, "1 2.5")
    roll.listen()("".join(SAID[probe].format(f"10.0.1.{number}") for number in range(8) for probe in RAW).encode())
    roll.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:length] + b"\0" * 16)
    told: list[str] = []
    with_less = RollCall(path, "1 2.5", told.append)
    good = whole.rfind(b"\n", 0, length) + 1
    damaged = f"discovery: damaged after {good} bytes; what was noted there is asked again"
    assert told == ([damaged] if good else [])
    total: Counter[tuple[str, Probe]] = Counter()
    for part in with_less.left([f"10.0.1.{number}" for number in range(8)], RAW):
        total += asked(part)
    lines = max(0, whole[:length].count(b"\n") - 1)  # the first says whose they are
    assert total.total() == 8 * len(RAW) * TRIES - lines
    with_less.listen()(SAID["echo"].format("10.0.2.1").encode())
    with_less.close()
    assert path.read_bytes().startswith(whole[: whole.rfind(b"\n", 0, length) + 1])
    assert path.read_bytes().endswith(b"10.0.2.1 echo\n")


def test_the_notes_of_another_run_are_none(tmp_path: Path) -> None:
    path = tmp_path / "discovery"
    roll = RollCall(path, "1 2.5")
    roll.listen()(SAID["echo"].format("10.0.1.1").encode())
    roll.close()
    other = RollCall(path, "2 2.5")
    assert other.left(["10.0.1.1"], RAW) == [Part((), 2, ("10.0.1.1",))]
    other.close()
    assert path.read_bytes() == b"2 2.5\n"
    with path.open("ab") as file:
        file.truncate(MOST)
    RollCall(path, "2 2.5").close()
    assert path.read_bytes() == b"2 2.5\n"


def test_an_answer_to_what_was_not_asked_is_not_believed(tmp_path: Path) -> None:
    roll = RollCall(tmp_path / "discovery", "1")
    hear = roll.listen()
    hear(ECHO.format("10.0.1.1").encode())
    assert roll.answer("10.0.1.1") is None
    hear((SAID["echo"].format("10.0.1.1") + ECHO.format("10.0.1.1") * 2).encode())
    assert roll.answer("10.0.1.1%eth0") is not None
    roll.close()
    assert (tmp_path / "discovery").read_text() == "1\n10.0.1.1 echo\n10.0.1.1 echo echo-reply -\n"


REFUSED = "RCVD (0.1s) ICMP [{} > 10.0.0.1 Port 443 unreachable (type=3/code=3) ] IP [ttl=64 id=1 iplen=56 ]\n"


def test_who_says_of_itself_that_it_cannot_be_reached_is_there_if_it_was_asked(tmp_path: Path) -> None:
    roll = RollCall(tmp_path / "discovery", "1")
    roll.listen()((SAID["443"].format("10.0.1.1") + REFUSED.format("10.0.1.1") + REFUSED.format("10.0.1.2")).encode())
    roll.close()
    again = RollCall(tmp_path / "discovery", "1")
    assert again.answer("10.0.1.1") is not None
    assert again.answer("10.0.1.2") is None
    again.close()


def test_what_was_asked_can_be_forgotten_and_answers_are_kept(tmp_path: Path) -> None:
    roll = RollCall(tmp_path / "discovery", "1")
    hear = roll.listen()
    hear((SAID["echo"].format("10.0.1.1") + ECHO.format("10.0.1.1") + SAID["echo"].format("10.0.1.2")).encode())
    roll.forget()
    assert roll.left(["10.0.1.1", "10.0.1.2"], RAW) == [Part((), 2, ("10.0.1.2",))]
    hear(SAID["80"].format("10.0.1.3").encode())
    roll.close()
    again = RollCall(tmp_path / "discovery", "1")
    left = again.left(["10.0.1.1", "10.0.1.2", "10.0.1.3"], RAW)
    assert [part.addresses for part in left] == [("10.0.1.2",), ("10.0.1.3",), ("10.0.1.3",)]
    again.close()


def test_a_full_disk_is_said_once_and_what_was_noted_before_is_good(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=True)
    try:
        roll = RollCall(small / "discovery", "1")
        hear = roll.listen()
        line = SAID["echo"].format("10.0.1.1").encode()
        with pytest.raises(StorageFailure, match=r"discovery: cannot be kept: No space left on device"):
            for _ in range(10_000):
                hear(line)
        hear(line)  # the scan ends now, and nmap is heard out
        roll.close()
        again = RollCall(small / "discovery", "1")
        assert not again.left(["10.0.1.1"], ("echo",))
        again.close()
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailure, match=r"link: cannot be kept: "):
        RollCall(tmp_path / "link", "1")
    full = RollCall(tmp_path / "roll", "1")
    full.close()
    with pytest.raises(StorageFailure, match=r"roll: cannot be kept: "):
        full.listen()(SAID["echo"].format("10.0.1.1").encode())
