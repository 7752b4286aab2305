"""Proof that capturing works on this machine, without an interface as far as that goes: for ``agentctl selftest``.

The same libpcap, by the same bindings, does here what it does in a worker. Nothing is written but to memory.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import time

from agent.errors import CaptureFailure
from agent.workers.capture import binding, savefile, worker
from agent.workers.capture.binding import pcap
from agent.workers.capture.dumper import Stream
from agent.workers.capture.handle import Handle, Options

WORKER = worker.CaptureWorker
"""What a worker is, and so everything that one loads."""

PORT = 9
PACKETS = 3
FILTER = f"udp dst port {PORT}"
WAIT = 3.0
"""Seconds within which the loopback interface must have shown what was sent."""

_ETHERNET = 1  # pcap-linktype(7): LINKTYPE_ETHERNET
_SNAPLEN = 65535
_RING = 2 * 1024 * 1024
_OTHERS = (PORT + 1, PORT + 2)


def offline() -> str:
    """Write packets to a savefile, read them back through a compiled filter; returns which libpcap did so.

    Raises ``CaptureFailure``.
    """
    ports = [PORT, _OTHERS[0], PORT, _OTHERS[1], PORT]
    fd = os.memfd_create("savefile", os.MFD_CLOEXEC)
    try:
        _write(os.dup(fd), [_datagram(port) for port in ports])
        data = os.pread(fd, 1024 * 1024, 0)
        form = savefile.parse_header(data)
        walked = savefile.whole_records(data[savefile.FILE_HEADER :], form) if form else None
        if walked is None or walked.records != len(ports):
            raise CaptureFailure(f"a savefile of {len(ports)} packets was not written as one")
        found = _count(f"/proc/self/fd/{fd}".encode())
    finally:
        os.close(fd)
    if found != PACKETS:
        raise CaptureFailure(f"{found} of {len(ports)} packets of a savefile passed {FILTER!r}, not {PACKETS}")
    return str(pcap.pcap_lib_version().decode("ascii", "replace"))


def live() -> None:
    """Capture on the loopback interface what is sent to it. Raises ``CaptureFailure``; needs CAP_NET_RAW."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        options = Options(snaplen=_SNAPLEN, promiscuous=False, ring=_RING, filter=f"udp dst port {_port(target)}")
        handle = Handle("lo", options)
        try:
            stream = Stream(handle, os.memfd_create("segment", os.MFD_CLOEXEC))
            try:
                for _ in range(PACKETS):
                    target.sendto(b"selftest", target.getsockname())
                _await(handle, stream)
                stream.flush()
            finally:
                stream.close()
        finally:
            handle.close()


def _await(handle: Handle, stream: Stream) -> None:
    seen, deadline = 0, time.monotonic() + WAIT
    while seen < PACKETS:
        seen += handle.dispatch(stream.user, PACKETS)
        left = deadline - time.monotonic()
        if seen < PACKETS and (left <= 0 or not select.select([handle.fd], [], [], left)[0]):
            raise CaptureFailure(f"lo: {seen} of {PACKETS} packets that were sent were captured")


def _port(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def _datagram(port: int) -> bytes:
    """An Ethernet frame with an IPv4 datagram to a UDP port: RFC 894, 791, 768."""
    udp = struct.pack("!4H", 40000, port, 8, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0, bytes(4), bytes(4))
    return bytes(12) + struct.pack("!H", 0x0800) + ip + udp


def _write(fd: int, frames: list[bytes]) -> None:
    """Have libpcap write the frames, through the stdio stream that a segment is written through. Owns ``fd``."""
    stream = binding.fdopen(fd, b"w+b")
    dead = pcap.pcap_open_dead(_ETHERNET, _SNAPLEN)
    dumper = binding.pcap_dump_fopen(dead, stream) if stream and dead else None
    if dumper is None:
        raise CaptureFailure("libpcap cannot begin a savefile")
    for number, frame in enumerate(frames):
        header = pcap.pcap_pkthdr(pcap.timeval(number, 0), len(frame), len(frame))
        data = (ctypes.c_ubyte * len(frame)).from_buffer_copy(frame)
        pcap.pcap_dump(ctypes.cast(dumper, ctypes.POINTER(pcap.pcap_dumper)), header, data)
    failed = binding.fclose(stream)
    pcap.pcap_close(dead)
    if failed:
        raise CaptureFailure("libpcap cannot write a savefile")


def _count(path: bytes) -> int:
    """How many packets of a savefile pass ``FILTER``."""
    errbuf = ctypes.create_string_buffer(binding.ERRBUF_SIZE)
    opened = pcap.pcap_open_offline(path, errbuf)
    if not opened:
        raise CaptureFailure(f"libpcap cannot read its own savefile: {errbuf.value.decode('utf-8', 'replace')}")
    try:
        program = pcap.bpf_program()
        unknown = ctypes.c_int(binding.NETMASK_UNKNOWN).value
        if pcap.pcap_compile(opened, ctypes.byref(program), FILTER.encode(), 1, unknown) != 0:
            raise CaptureFailure(f"libpcap cannot compile {FILTER!r}")
        if pcap.pcap_setfilter(opened, ctypes.byref(program)) != 0:
            raise CaptureFailure(f"libpcap cannot use {FILTER!r}")
        header, data = ctypes.POINTER(pcap.pcap_pkthdr)(), ctypes.POINTER(ctypes.c_ubyte)()
        count = 0
        while pcap.pcap_next_ex(opened, ctypes.byref(header), ctypes.byref(data)) == 1:
            count += 1
        pcap.pcap_freecode(ctypes.byref(program))
        return count
    finally:
        pcap.pcap_close(opened)
