"""The filter of a socket in the kernel, past libpcap: classic BPF, socket(7) and linux/filter.h.

A program is the bytes of an array of ``struct sock_filter``, in the byte order of the machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

_INSTRUCTION = struct.Struct("=HBBI")
_BPF_RET_K = 0x06  # linux/filter.h: BPF_RET | BPF_K

NOTHING = _INSTRUCTION.pack(_BPF_RET_K, 0, 0, 0)
"""Lets no packet pass."""

_SO_ATTACH_FILTER = _SO_GET_FILTER = 26  # asm-generic/socket.h
_SO_DETACH_FILTER = 27

_libc = ctypes.CDLL(None, use_errno=True)
_libc.getsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def attached(fd: int) -> bytes:
    """The program that is attached to a socket; empty when there is none. Raises ``OSError``."""
    count = ctypes.c_uint32(0)  # of instructions here, and not of bytes
    _get(fd, None, count)
    if not count.value:
        return b""
    program = ctypes.create_string_buffer(count.value * _INSTRUCTION.size)
    _get(fd, program, count)
    return program.raw


def attach(packets: socket.socket, program: bytes) -> None:
    """Attach a program in place of the one there is; without one everything passes. Raises ``OSError``."""
    if not program:
        packets.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        return
    held = ctypes.create_string_buffer(program, len(program))
    filled = struct.pack("HP", len(program) // _INSTRUCTION.size, ctypes.addressof(held))  # struct sock_fprog
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filled)


def _get(fd: int, program: ctypes.Array[ctypes.c_char] | None, count: ctypes.c_uint32) -> None:
    if _libc.getsockopt(fd, socket.SOL_SOCKET, _SO_GET_FILTER, program, ctypes.byref(count)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
