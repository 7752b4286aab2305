"""What nmap found becomes plain values, whatever strangers wrote into their banners."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agent.errors import ScanFailure
from agent.workers.scan.found import Host
from agent.workers.scan.results import document, given_as, read_host, read_hosts
from agent.workers.scan.stream import TEXT_LIMIT, XmlStream


def read(data: bytes, addresses: tuple[str, ...]) -> list[Host]:
    """The hosts of a document."""
    hosts: list[Host] = []
    given = given_as(addresses)
    stream = XmlStream(on_host=lambda element: hosts.append(read_host(element, given)))
    stream.feed(data)
    stream.close()
    return hosts


def answer(hosts: str) -> bytes:
    return (
        f'<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun version="7.93">{hosts}<runstats>'
        '<finished exit="success"/><hosts up="1" down="0" total="1"/></runstats></nmaprun>'
    ).encode()


def host(address: str, ports: str = "", kind: str = "ipv4") -> str:
    return (
        f'<host><status state="up" reason="arp-response"/><address addr="{address}" addrtype="{kind}"/>'
        f'<address addr="02:AB:00:00:00:01" addrtype="mac"/><hostnames/><ports>{ports}</ports></host>'
    )


OPEN = '<port protocol="tcp" portid="22"><state state="open" reason="syn-ack"/><service name="ssh"/></port>'


@pytest.fixture
def ssh_port() -> Iterator[int]:
    """A listener with the banner of an SSH server, and nothing behind it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # a port scan hangs up before the banner
                connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_real_answer_tells_of_the_port_that_listens_and_what_it_is(ssh_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    done = subprocess.run(
        ["nmap", "-n", "-sT", "-sV", "-p", f"{ssh_port},{closed}", "-oX", "-", "127.0.0.1"],
        capture_output=True,
        check=True,
    )
    (found,) = read(done.stdout, ("127.0.0.1",))
    assert (found.address, found.state) == ("127.0.0.1", "up")
    by_number = {port.number: port for port in found.ports}
    assert by_number[closed].state == "closed"
    port = by_number[ssh_port]
    assert (port.protocol, port.state, port.reason) == ("tcp", "open", "syn-ack")
    assert (port.service, port.product) == ("ssh", "OpenSSH")
    assert port.version.startswith("9.2p1")
    assert "cpe:/a:openbsd:openssh:9.2p1" in port.cpe
    assert port.method == "probed"
    assert port.ostype == "Linux"


def test_what_the_parser_drops_is_kept() -> None:
    data = answer(
        host(
            "10.0.0.1",
            '<port protocol="tcp" portid="443"><state state="open" reason="syn-ack"/><service name="http" tunnel="ssl"'
            ' product="nginx"><cpe>cpe:/a:igor_sysoev:nginx</cpe><cpe>cpe:/o:linux:linux_kernel</cpe></service></port>',
        )
    )
    (found,) = read(data, ("10.0.0.1",))
    assert found.mac == "02:ab:00:00:00:01"
    (port,) = found.ports
    assert port.tunnel == "ssl"
    assert port.cpe == ("cpe:/a:igor_sysoev:nginx", "cpe:/o:linux:linux_kernel")


def test_a_hostile_banner_is_made_harmless() -> None:
    evil = "&#x9b;31m&#x202e;&#xa;&#x2028;" + "A" * 100_000
    data = answer(
        host(
            "10.0.0.1",
            f'<port protocol="tcp" portid="21"><state state="open" reason="syn-ack"/>'
            f'<service name="{evil}" product="{evil}" version="{evil}" extrainfo="{evil}" tunnel="{evil}">'
            f"<cpe>{evil}</cpe></service></port>",
        )
    )
    (found,) = read(data, ("10.0.0.1",))
    (port,) = found.ports
    for text in (port.service, port.product, port.version, port.extrainfo, port.tunnel, *port.cpe):
        assert text.isprintable()
        assert text.startswith("31m AAAA")
        assert len(text) <= TEXT_LIMIT


def test_many_hosts_are_read_as_each_alone() -> None:
    elements = [host(f"10.0.0.{number}", OPEN if number % 2 else "").encode() for number in range(1, 9)]
    addresses = [f"10.0.0.{number}" for number in range(1, 9)]
    given = given_as(addresses)
    together = read_hosts(elements, given)
    assert together == [read_host(element, given) for element in elements]
    assert [found.address for found in together] == addresses
    with pytest.raises(ScanFailure, match="cannot be understood"):
        read_hosts([elements[0], elements[0]], given)


def test_what_is_kept_of_hosts_can_be_read_again() -> None:
    elements = [host("10.0.0.1", OPEN).encode(), host("10.0.0.2").encode()]
    kept = document(elements, 'evil">7.93')
    hosts: list[bytes] = []
    stream = XmlStream(on_host=hosts.append)
    stream.feed(kept)
    verdict = stream.close()
    assert hosts == elements
    assert (verdict.version, verdict.exit, verdict.hosts_total) == ("evil7.93", "success", 2)


def test_the_interface_of_a_link_local_host_is_put_back() -> None:
    data = answer(host("fe80::1", kind="ipv6"))
    assert [found.address for found in read(data, ("fe80::1%eth0",))] == ["fe80::1%eth0"]


def test_an_answer_about_somebody_else_is_refused() -> None:
    with pytest.raises(ScanFailure, match=r"nmap answered for 10\.0\.0\.2, which was not asked for"):
        read(answer(host("10.0.0.2")), ("10.0.0.1",))


@pytest.mark.parametrize(
    "inside",
    [
        "<host/>",
        host("not an address"),
        host("10.0.0.1", "<port/>"),
        host("10.0.0.1", '<port protocol="tcp" portid="99999"><state state="open" reason="x"/></port>'),
        host("10.0.0.1", '<port protocol="tcp" portid="1"/>'),
        host("10.0.0.1").replace('<status state="up" reason="arp-response"/>', ""),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_in_one_short_line(inside: str) -> None:
    with pytest.raises(ScanFailure, match="cannot be understood") as failure:
        read(answer(inside), ("10.0.0.1",))
    assert len(str(failure.value)) < 100


def test_reading_starts_no_process() -> None:
    """python-nmap's constructor would run ``nmap -V``."""
    script = (
        "import sys\n"
        "started = []\n"
        "sys.addaudithook(lambda event, _: started.append(event)"
        " if event in ('subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.system') else None)\n"
        "from agent.workers.scan.results import read_host\n"
        "host = read_host(sys.stdin.buffer.read(), lambda address: address)\n"
        "assert host.state == 'up' and not started, (host, started)\n"
    )
    subprocess.run([sys.executable, "-c", script], input=host("10.0.0.1").encode(), check=True)
