"""What is shown of a run."""

from __future__ import annotations

from agent.cli.scan_show import _rows
from agent.workers.scan.found import Host, Port


def test_a_port_of_which_nobody_learned_what_it_is_says_why() -> None:
    ports = (
        Port("tcp", 22, "open", "syn-ack", "ssh", "OpenSSH"),
        Port("tcp", 23, "open", "syn-ack; says nothing"),
        Port("tcp", 24, "open", "syn-ack; nmap: tcpwrapped", "priv-mail"),
    )
    rows = _rows(Host("10.0.0.1", "up", "syn-ack", ports=ports))
    assert [row[4] for row in rows] == ["ssh OpenSSH", "(says nothing)", "priv-mail (hangs up at once)"]
