"""A network of real programs, and what was captured on it; and tshark, which says what is in there.

Two network namespaces. In the one dnsmasq (DHCP, DHCPv6, router advertisements, DNS), lldpd and a TLS server; in the
other dhclient, avahi (mDNS), ping and a TLS client, and tcpdump.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agent.workers.capture import savefile

PATIENCE = 20.0

SERVER_MAC, CLIENT_MAC = "02:00:00:00:0a:01", "02:00:00:00:0b:02"
SERVER, SERVER6 = "10.77.0.1", "fd77::1"
SERVER_LINK, CLIENT_LINK = "fe80::ff:fe00:a01", "fe80::ff:fe00:b02"

_QUERIES = """
import socket
for kind in (1, 28):
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(5)
    name = b"\\3www\\3lab\\4test\\0"
    asker.sendto(b"\\0\\1\\1\\0\\0\\1" + bytes(6) + name + bytes([0, kind, 0, 1]), ("10.77.0.1", 53))
    asker.recv(512)
"""

_SOLICIT = """
import socket
asker = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
asker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
asker.sendto(bytes([133, 0, 0, 0, 0, 0, 0, 0]), ("ff02::2", 0, 0, socket.if_nametoindex("client")))
"""

_ADVERTISED = b"\x86\xdd\x3a\x86"
"""Of a router's advertisement: the EtherType, the next header, and the type of the message."""

_DUPLICATES = "/proc/sys/net/ipv6/conf/default/accept_dad"  # 1 s of waiting, else

_AVAHI = """
[server]
host-name=printer
enable-dbus=no
allow-interfaces=client
[rlimits]
"""

_PRINTER = """<?xml version="1.0" standalone='no'?><!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>Printer in the hall</name><service><type>_ipp._tcp</type><port>631</port></service></service-group>
"""


class Packet(NamedTuple):
    """One record of a capture: nanoseconds since the epoch, and its bytes."""

    time: int
    data: bytes


class Lab(NamedTuple):
    """The capture, and the addresses that the client was given."""

    path: Path
    client: str
    client6: str


def packets(path: Path) -> list[Packet]:
    """All whole packets of a capture."""
    data = path.read_bytes()
    form = savefile.parse_header(data)
    found: list[Packet] = []
    place = savefile.FILE_HEADER
    while form is not None and place + savefile.RECORD_HEADER <= len(data):
        seconds, fraction, captured, _ = struct.unpack_from(form.order + "IIII", data, place)
        place += savefile.RECORD_HEADER
        found.append(Packet(seconds * 1_000_000_000 + fraction * form.unit, data[place : place + captured]))
        place += captured
    return found


def write(path: Path, frames: list[Packet], link_type: int = 1) -> Path:
    """A capture with nanoseconds of these frames."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link_type))
        for at, data in frames:
            seconds, fraction = divmod(at, 1_000_000_000)
            file.write(struct.pack("<IIII", seconds, fraction, len(data), len(data)) + data)
    return path


def fields(path: Path, condition: str, *names: str) -> list[tuple[str, ...]]:
    """What tshark says of these fields in each packet for which a display filter holds."""
    asked = [argument for name in names for argument in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-Y", condition, "-T", "fields", *asked],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


def wait_for(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"there was never {what}"
        time.sleep(0.01)


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in ``log``, ended at the end."""
    with log.open("wb") as output, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output) as it:
        try:
            yield it
        finally:
            it.terminate()
            it.wait(PATIENCE)


def said(log: Path, words: str) -> Callable[[], bool]:
    return lambda: words in log.read_text(errors="replace")


def traffic(place: Path) -> Lab:
    """Let them all talk, and return what was captured."""
    name = f"hosts-test-{os.getpid()}-{time.monotonic_ns()}"
    server, client = f"{name}-s", f"{name}-c"
    in_server, in_client = (["ip", "netns", "exec", each] for each in (server, client))
    capture = place / "lab.pcap"
    with ExitStack() as stack:
        for namespace in (server, client):
            run("ip", "netns", "add", namespace)
            stack.callback(run, "ip", "netns", "delete", namespace)
            run("ip", "netns", "exec", namespace, "sh", "-c", f"echo 0 > {_DUPLICATES}")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        peer = ["peer", "name", "client", "netns", client, "address", CLIENT_MAC]
        run("ip", "-n", server, "link", "add", "server", "address", SERVER_MAC, "type", "veth", *peer)
        run("ip", "-n", server, "addr", "add", f"{SERVER}/24", "dev", "server")
        run("ip", "-n", server, "addr", "add", f"{SERVER6}/64", "dev", "server")
        run("ip", "-n", client, "link", "set", "client", "up")
        dump = ["tcpdump", "-i", "client", "-U", "--immediate-mode", "-Z", "root", "-w", str(capture)]
        stack.enter_context(started([*in_client, *dump], place / "tcpdump.log"))
        wait_for(said(place / "tcpdump.log", "listening"), "a tcpdump that listens")
        run("ip", "-n", server, "link", "set", "server", "up")
        _serve(stack, in_server, place)
        given, given6 = _lease(in_client, place)
        run("ip", "-n", client, "addr", "add", f"{given}/24", "dev", "client")
        run("ip", "-n", client, "addr", "add", f"{given6}/64", "dev", "client")
        _announce(stack, in_client, place)
        run(*in_client, "ping", "-c1", "-W5", SERVER)
        run(*in_client, "ping", "-c1", "-W5", SERVER6)
        for asked in (_QUERIES, _SOLICIT):
            run(*in_client, sys.executable, "-c", asked)
        for where, asked in ((f"{SERVER}:443", "www.lab.test"), (f"[{SERVER6}]:443", "six.lab.test")):
            hello = [*in_client, "openssl", "s_client", "-connect", where, "-servername", asked]
            subprocess.run(hello, input=b"Q\n", capture_output=True, timeout=PATIENCE, check=True)
        wait_for(lambda: _complete(packets(capture)), "LLDP, an answer of avahi, and one of the router")
    return Lab(capture, given, given6)


def _complete(seen: list[Packet]) -> bool:
    return (
        any(packet.data[12:14] == b"\x88\xcc" for packet in seen)
        and any(b"\x04_ipp" in packet.data and b"\x84\x00\x00\x00" in packet.data for packet in seen)
        and any(
            packet.data[12:14] == b"\x86\xdd" and packet.data[20:21] + packet.data[54:55] == b"\x3a\x86"
            for packet in seen
        )
    )


def _serve(stack: ExitStack, inside: list[str], place: Path) -> None:
    addresses = f"--host-record=www.lab.test,{SERVER},{SERVER6}"
    dnsmasq = ["dnsmasq", "-k", "--conf-file=/dev/null", "--interface=server", "--bind-dynamic", "--user=root"]
    dnsmasq += ["--no-resolv", "--no-hosts", "--no-ping", "--pid-file=", "--log-facility=-", "--domain=lab.test"]
    dnsmasq += ["--dhcp-authoritative", f"--dhcp-leasefile={place / 'leases'}", "--enable-ra", addresses]
    dnsmasq += ["--dhcp-range=10.77.0.100,10.77.0.150,1h", "--dhcp-range=fd77::100,fd77::1ff,64,1h"]
    stack.enter_context(started([*inside, *dnsmasq], place / "dnsmasq.log"))
    lldpd = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && exec lldpd -d -I server -C server -S 'Lab'"
    stack.enter_context(started([*inside, "unshare", "-m", "sh", "-c", lldpd], place / "lldpd.log"))
    key, certificate = str(place / "key.pem"), str(place / "certificate.pem")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=lab"]
    run("openssl", "req", "-x509", *new, "-keyout", key, "-out", certificate)
    listen = ["openssl", "s_server", "-accept", "443", "-cert", certificate, "-key", key]
    stack.enter_context(started([*inside, *listen], place / "tls.log"))
    wait_for(said(place / "tls.log", "ACCEPT"), "a TLS server")
    wait_for(said(place / "dnsmasq.log", "started"), "a dnsmasq")


def _lease(inside: list[str], place: Path) -> tuple[str, str]:
    """The addresses that dhclient is given."""
    settings = place / "dhclient.conf"
    settings.write_text('send host-name "printer";\nsend fqdn.fqdn "printer.lab.test";\ninitial-interval 1;\n')
    given = []
    for version, words in (("4", "fixed-address"), ("6", "iaaddr")):
        leases = place / f"leases{version}"
        leases.touch()
        files = ["-cf", str(settings), "-lf", str(leases), "-pf", str(place / f"dhclient{version}.pid")]
        ask = [*inside, "dhclient", f"-{version}", "-d", *files, "-sf", "/bin/true", "client"]
        with started(ask, place / f"dhclient{version}.log"):
            wait_for(partial(_found, words, leases), f"a lease of DHCPv{version}")
        given.extend(_found(words, leases))
    return given[0], given[1]


def _found(words: str, leases: Path) -> list[str]:
    return re.findall(rf"{words} ([0-9a-f.:]+)[ ;]", leases.read_text())[:1]


def _announce(stack: ExitStack, inside: list[str], place: Path) -> None:
    etc = place / "avahi"
    (etc / "services").mkdir(parents=True)
    (etc / "services" / "printer.service").write_text(_PRINTER)
    settings = place / "avahi.conf"
    settings.write_text(_AVAHI)
    mounts = f"mount --bind {etc} /etc/avahi && mount -t tmpfs none /run"
    avahi = f"exec avahi-daemon --no-drop-root --no-chroot --debug -f {settings}"
    stack.enter_context(started([*inside, "unshare", "-m", "sh", "-c", f"{mounts} && {avahi}"], place / "avahi.log"))


def missing() -> list[str]:
    """Programs that are not there."""
    needed = ("dnsmasq", "dhclient", "avahi-daemon", "lldpd", "openssl", "ping", "tcpdump", "tshark")
    return [program for program in needed if not shutil.which(program)]
