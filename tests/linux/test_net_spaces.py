"""Sockets and addresses of other network namespaces as the kernel writes them down; real ones are in test_listening."""

from __future__ import annotations

import os
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux import net_spaces
from agent.linux.net_spaces import MOST_ADDRESSES, Space, bound_in, local_addresses, sockets, spaces

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LISTENS = "   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 77369236 1 0 100 0\n"
TALKS = "   1: 0100007F:1F91 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0 0 77369237 1 0 100 0\n"
WIDE = (
    "   0: B80D0120000051000000000007000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000"
    " 00:00000000 00000000     0        0 5 1 0 100 0\n"
)


def test_a_line_is_a_socket_that_waits_for_strangers() -> None:
    (one,) = sockets(HEAD + LISTENS + TALKS, "tcp", socket.AF_INET, "0A")
    assert (one.address, one.port, one.uid, one.inode, one.dual) == ("127.0.0.1", 8081, 1000, 77369236, False)
    (one,) = sockets(HEAD + WIDE, "tcp", socket.AF_INET6, "0A")
    assert (one.address, one.port, one.dual) == ("2001:db8:51::7", 8080, False)


def test_our_own_sockets_are_read_as_they_are() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        table = Path("/proc/self/net/tcp").read_text()
        (found,) = (one for one in sockets(table, "tcp", socket.AF_INET, "0A") if one.port == server.getsockname()[1])
        assert (found.address, found.inode) == ("127.0.0.1", os.fstat(server.fileno()).st_ino)


def test_addresses_are_those_by_which_others_reach_it() -> None:
    trie = """Main:
        |-- 10.7.0.0
           /24 link UNICAST
        |-- 10.7.0.9
           /32 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 10.7.0.255
           /32 link BROADCAST
    """
    inet6 = (
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe80000000000000000000000000000a 02 40 20 80     eth0\n"
        "fd000000000000000000000000000009 02 40 00 80     eth0\n"
    )
    assert local_addresses(trie, inet6) == {"10.7.0.9", "fd00::9"}
    many = "".join(f"|-- 10.7.{number >> 8}.{number & 255}\n /32 host LOCAL\n" for number in range(5000))
    assert len(local_addresses(many, inet6)) == MOST_ADDRESSES


def test_of_all_namespaces_together_no_more_is_kept_than_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own stands for another: 40 sockets of TCP, and some of UDP, which have the last part of its share."""
    monkeypatch.setattr(net_spaces, "MOST_OF_ALL", 320)
    us = Space(Path("/proc/self/net/tcp").stat().st_ino, os.getpid(), frozenset())
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(3):
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", 0))
        assert Counter(one.protocol for one in bound_in(us))["tcp"] >= 40
        few = bound_in(us, of=16)
        assert len(few) <= 20
        assert Counter(one.protocol for one in few if one.family == socket.AF_INET)["tcp"] == 5
        assert any(one.protocol == "udp" for one in few)
        monkeypatch.setattr(net_spaces, "MOST_BYTES_OF_ALL", 4 * 16 * 1000)
        assert 0 < len(bound_in(us, of=16)) <= 4 * 6  # 150 bytes are a line


def test_our_own_namespace_is_none_of_the_others() -> None:
    assert spaces([os.getpid(), 2**22 + 1]) == []


@given(st.text(alphabet="0123456789ABCDEF:. -|/\nhostLOCA", max_size=300), st.sampled_from(["tcp", "udp"]))
def test_whatever_stands_there_is_read_without_a_failure(words: str, protocol: str) -> None:
    for family, line in ((socket.AF_INET, LISTENS), (socket.AF_INET6, WIDE)):
        for text in (words, HEAD + line.replace("0A", words, 1), HEAD + words + line):
            for one in sockets(text, protocol, family, "0A"):
                assert 0 < one.port < 65536
    local_addresses(words, words)
