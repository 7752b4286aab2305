"""Sends UDP packets in Ethernet frames at a steady rate until its stdin ends: ``sender INTERFACE RATE MAC``.

It says ``begun`` with the first ones, and at the end ``{"sent", "seconds", "refused"}``: how many went out, in what
time, and how often the interface would not take more.

sendmmsg(2) through ctypes takes 64 frames at a time, past the queueing discipline (packet(7), PACKET_QDISC_BYPASS), so
that Python has no work for each. Who was kept from running catches up: the rate is kept on average, in bursts.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import time

BATCH = 64
PAYLOAD = 58
"""Bytes: frames of 100 with the headers."""
PORT = 9
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20


class Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = (("header", Header), ("sent", ctypes.c_uint))


def frame(mac: bytes) -> bytes:
    """What is sent, to the station ``mac``."""
    udp = struct.pack(">4H", PORT, PORT, 8 + PAYLOAD, 0) + bytes(PAYLOAD)
    addresses = socket.inet_aton("10.99.0.2") + socket.inet_aton("10.99.0.1")
    ip = struct.pack(">2B3H2BH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    return mac + bytes(6) + b"\x08\x00" + ip + udp


def main() -> None:
    interface, rate, mac = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3].replace(":", ""))
    data = frame(mac)
    buffer = ctypes.create_string_buffer(data, len(data))
    vector = Vector(ctypes.addressof(buffer), len(data))
    messages = (Message * BATCH)()
    for message in messages:
        message.header.vectors, message.header.vector_count = ctypes.pointer(vector), 1
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    sent = refused = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        begun = time.monotonic()
        while not select.select([0], [], [], 0)[0]:
            count = sendmmsg(sender.fileno(), messages, BATCH, 0)
            if count < 0 and ctypes.get_errno() != errno.ENOBUFS:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            if sent == 0:
                print("begun", flush=True)
            sent += max(count, 0)
            refused += count < 0
            time.sleep(max(0.0, sent / rate - (time.monotonic() - begun)))
        seconds = time.monotonic() - begun
    print(json.dumps({"sent": sent, "seconds": seconds, "refused": refused}))


if __name__ == "__main__":
    main()
