"""The kernel's list of sockets that wait for strangers: real ones, and messages that are none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from agent.linux.sock_diag import bound, parse


def test_listeners_and_unconnected_sockets_are_found_and_no_others() -> None:
    with ExitStack() as stack:

        def made(family: socket.AddressFamily, kind: socket.SocketKind, address: str) -> socket.socket:
            one = stack.enter_context(socket.socket(family, kind))
            one.bind((address, 0))
            return one

        tcp4 = made(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
        tcp4.listen()
        dual = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        only6 = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=False))
        udp = made(socket.AF_INET6, socket.SOCK_DGRAM, "::1")
        not_listening = made(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
        connected = made(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
        connected.connect(("127.0.0.1", 9))
        client = stack.enter_context(socket.create_connection(tcp4.getsockname()))

        def port(one: socket.socket) -> int:
            found: int = one.getsockname()[1]
            return found

        found = {(one.protocol, one.port): one for one in bound()}
        one = found["tcp", port(tcp4)]
        assert (one.family, one.address, one.uid, one.dual) == (socket.AF_INET, "127.0.0.1", os.getuid(), False)
        assert one.inode == os.fstat(tcp4.fileno()).st_ino
        assert (found["tcp", port(dual)].address, found["tcp", port(dual)].dual) == ("::", True)
        assert (found["tcp", port(only6)].address, found["tcp", port(only6)].dual) == ("::", False)
        assert found["udp", port(udp)].address == "::1"
        for absent, protocol in ((not_listening, "tcp"), (connected, "udp"), (client, "tcp")):
            assert (protocol, port(absent)) not in found


def test_anybody_may_ask_about_anybody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ask = (
            "import os, sys\nfrom agent.linux.sock_diag import bound\nos.setgid(65534); os.setuid(65534)\n"
            "found = [one for one in bound() if one.protocol == 'tcp' and one.port == int(sys.argv[1])]\n"
            "print([(one.uid, one.cgroup > 0) for one in found])"
        )
        wanted = str(listening.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", ask, wanted], capture_output=True, text=True, check=False, timeout=30
        )
    assert (done.stdout, done.stderr) == (f"[({os.getuid()}, True)]\n", "")


@given(st.binary(max_size=300), st.sampled_from([socket.AF_INET, socket.AF_INET6]))
def test_no_bytes_are_too_strange(data: bytes, family: int) -> None:
    for payload in (data, bytes((family,)) + data):
        one = parse(payload, "udp")
        if one is None:  # too short, of another family, or of a socket with a peer
            assert len(payload) < 72 or payload[0] not in (socket.AF_INET, socket.AF_INET6) or payload[6:8] != bytes(2)
        else:
            assert socket.inet_pton(one.family, one.address)
            assert (one.protocol, one.family, one.port) == ("udp", payload[0], int.from_bytes(payload[4:6], "big"))
