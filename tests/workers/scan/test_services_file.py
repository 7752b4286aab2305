"""The ports open most often, held against what the host's nmap says they are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.ports import LAST, parse_ports
from agent.errors import ScanFailure
from agent.workers.scan.services_file import Ranks, parse_services, read_services, settle

FILE = Path("/usr/share/nmap/nmap-services")


@pytest.mark.parametrize("number", [1, 10, 100, 1000, 4000])
def test_the_first_ports_are_those_that_nmap_itself_would_ask(number: int) -> None:
    argv = ["nmap", "--privileged", "-sSU", "--top-ports", str(number), "-v", "-oG", "-"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    tcp, udp = (told.partition(f"{name}(")[2].partition(")")[0].partition(";")[2] for name in ("TCP", "UDP"))
    found = settle(parse_ports(f"top-{number},udp/top-{number}"), read_services(FILE))
    assert ",".join(str(found).replace("udp/", "").split(",")[: tcp.count(",") + 1]) == tcp
    assert str(found) == f"{tcp},{','.join(f'udp/{span}' for span in udp.split(','))}"


def test_where_the_file_has_fewer_the_others_follow() -> None:
    ranks = Ranks((80, 22), ())
    assert ranks.top("tcp", 4) == (80, 22, 1, 2)
    assert ranks.top("udp", 2) == (1, 2)
    assert str(settle(parse_ports("top-65535"), ranks)) == "1-65535"


def test_a_frequency_is_a_decimal_or_a_fraction() -> None:
    text = "# x\nhttp\t80/tcp\t0.484143\t# World Wide Web\na 7/tcp 1/2\nb 8/tcp 1/0\n"
    text += "c 9/udp .1\nd 10/sctp 0.9\ne 11/tcp 0\n"
    assert parse_services(text) == Ranks((7, 80), (9,))


@given(st.text(alphabet=st.sampled_from("a8/.tcpud0 \t\n#9"), max_size=200))
def test_any_text_gives_ports_that_there_are(text: str) -> None:
    ranks = parse_services(text)
    assert all(1 <= port <= LAST for port in (*ranks.tcp, *ranks.udp))


def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    for name, told in {
        "missing": "No such file or directory; top-N needs the list of ports that comes with nmap "
        "(apt-get install nmap)",
        "empty": "names no port; top-N needs nmap's list of ports",
        "pipe": "is not a regular file; top-N needs nmap's list of ports",
        "huge": "is larger than 16777216 bytes; top-N needs nmap's list of ports",
    }.items():
        with pytest.raises(ScanFailure) as error:
            read_services(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: {told}"
