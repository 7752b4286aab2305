"""What python-nmap drops is read beside it: certificates above all, held against openssl's word."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.dropped import PortFacts, read_dropped
from agent.workers.scan.results import given_as, read_host
from tests.workers.scan import lab
from tests.workers.scan.truth import of_kind

ASK = """
import os, sys
from agent.workers.scan.argv import Ask, ask_argv
from agent.workers.scan.program import choose_scripts, find_nmap
program = find_nmap()
script = choose_scripts(["ssl-cert"], program.data)[0].path
ask = Ask(4, tcp=((443, 443),), scripts=(script,))
words = ask_argv(ask, nmap=program.path, rate=1000, privileged=True, targets=0)
os.execve(words[0], words, dict(program.environment))
"""


def test_a_certificate_is_the_one_that_openssl_sees(net: lab.Network) -> None:
    address = of_kind("web")[0].address
    done = subprocess.run(
        net.inside(sys.executable, "-c", ASK), input=f"{address}\n".encode(), capture_output=True, check=True
    )
    element = done.stdout[done.stdout.index(b"<host ") : done.stdout.index(b"</host>") + 7]
    (port,) = read_host(element, given_as([address])).ports
    certificate = port.certificate
    assert certificate is not None
    shown = subprocess.run(
        net.inside("openssl", "s_client", "-connect", f"{address}:443"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    options = ["-noout", "-fingerprint", "-sha256", "-dates", "-dateopt", "iso_8601"]
    said = subprocess.run(["openssl", "x509", *options], input=shown.stdout, capture_output=True, check=True).stdout
    lines = dict(line.split("=", 1) for line in said.decode().splitlines())
    assert certificate.sha256 == lines["sha256 Fingerprint"].replace(":", "").lower()
    assert certificate.subject == certificate.issuer == f"commonName={lab.NAME}"
    assert seconds(lines["notBefore"]) == certificate.not_before
    assert seconds(lines["notAfter"]) == certificate.not_after
    assert [script.name for script in port.scripts] == ["ssl-cert"]


def seconds(text: str) -> int:
    said = subprocess.run(["date", "--utc", "--date", text, "+%s"], capture_output=True, text=True, check=True)
    return int(said.stdout)


def port(inside: str) -> PortFacts:
    element = f'<host><ports><port protocol="tcp" portid="443">{inside}</port></ports></host>'
    return read_dropped(element.encode()).ports["tcp", 443]


def test_everything_about_a_service_is_there() -> None:
    facts = port(
        '<state state="open" reason="syn-ack" reason_ttl="63"/><service name="http" tunnel="ssl" method="probed"'
        ' hostname="h" ostype="Linux" devicetype="router" servicefp="SF-Port443">'
        "<cpe>cpe:/a:x:y</cpe><cpe>cpe:/o:x:z</cpe></service>"
    )
    assert facts == PortFacts(
        "ssl", ("cpe:/a:x:y", "cpe:/o:x:z"), "probed", "h", "Linux", "router", 63, "SF-Port443", None
    )
    assert port('<state state="open" reason_ttl="-1"/>') == PortFacts()
    assert port("") == PortFacts()


@pytest.mark.parametrize(
    "elements",
    [
        "",
        '<elem key="pem">nothing</elem>',
        '<elem key="pem">-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----</elem>',
        '<elem key="pem">-----BEGIN CERTIFICATE-----\n====\n-----END CERTIFICATE-----</elem>',
        f'<elem key="pem">-----BEGIN CERTIFICATE-----{"A" * 200_000}-----END CERTIFICATE-----</elem>',
    ],
)
def test_what_is_no_certificate_is_none(elements: str) -> None:
    assert port(f'<state state="open"/><script id="ssl-cert" output="x">{elements}</script>').certificate is None


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_a_certificate_of_a_stranger_does_no_harm(name: str, when: str) -> None:
    def escaped(text: str) -> str:
        return "".join(f"&#{ord(each)};" for each in text if each.isprintable())

    certificate = port(
        '<state state="open"/><script id="ssl-cert" output="">'
        f'<table key="subject"><elem key="{escaped(name)}">{escaped(when)}</elem></table>'
        f'<table key="validity"><elem key="notBefore">{escaped(when)}</elem>'
        '<elem key="notAfter">9999-12-31T23:59:59</elem></table>'
        '<elem key="pem">-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----</elem></script>'
    ).certificate
    assert certificate is not None
    assert certificate.subject.isprintable()
    assert certificate.not_after == 253402300799
    assert certificate.not_before >= 0


@pytest.mark.parametrize("element", [b"", b"<host>", b'<host><ports><port portid="x"/></ports></host>'])
def test_what_is_no_host_is_refused(element: bytes) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        read_dropped(element)
