"""The C functions of libpcap and libc that capture uses, typed for Python.

libpcap is the one that ``agent.linux.libpcap`` finds, through the ctypes bindings that scapy ships in
``scapy.libs.winpcapy`` (the name is historic). That module alone is imported, never ``scapy.all``: it opens no cache,
reads no routes and costs 14 MB less. What it lacks is taken from the same library. Calls through ctypes release the
interpreter lock.
"""

from __future__ import annotations

import ctypes
from ctypes import util
from typing import Any

from agent.errors import CaptureFailure
from agent.linux import libpcap

_found = libpcap.load()
if _found is None:
    raise CaptureFailure("libpcap is not installed: on Debian and Ubuntu, `apt install libpcap0.8`")
_name, _library = _found
_find_library = util.find_library  # noqa: TID251  # not to be called
util.find_library = lambda name: _name  # noqa: TID251  # whom scapy asks for it
try:
    from scapy.libs import winpcapy
finally:
    util.find_library = _find_library  # noqa: TID251  # as it was

# pcap.h: what pcap_activate() returns.
ERROR_NO_SUCH_DEVICE = -5
ERROR_PERM_DENIED = -8
ERROR_IFACE_NOT_UP = -9
ERROR_PROMISC_PERM_DENIED = -11

NETMASK_UNKNOWN = 0xFFFFFFFF  # pcap.h: PCAP_NETMASK_UNKNOWN
TSTAMP_PRECISION_NANO = 1  # pcap.h: PCAP_TSTAMP_PRECISION_NANO
ERRBUF_SIZE = 256  # pcap.h: PCAP_ERRBUF_SIZE
MAXIMUM_SNAPLEN = 262144  # pcap-int.h: what libpcap cuts a larger snaplen down to

_IOFBF = 0  # stdio.h: fully buffered

pcap: Any = winpcapy

#: ``pcap_dump`` itself as the callback of ``pcap_dispatch``: C calls C, and no Python runs per packet.
DUMP = ctypes.cast(pcap.pcap_dump, pcap.pcap_handler)

pcap_dump_fopen: Any = _library.pcap_dump_fopen
pcap_dump_fopen.restype = ctypes.c_void_p
pcap_dump_fopen.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

pcap_dump_ftell64: Any = _library.pcap_dump_ftell64  # since libpcap 1.9
pcap_dump_ftell64.restype = ctypes.c_int64
pcap_dump_ftell64.argtypes = [ctypes.c_void_p]

pcap_set_tstamp_precision: Any = _library.pcap_set_tstamp_precision  # since libpcap 1.5
pcap_set_tstamp_precision.restype = ctypes.c_int
pcap_set_tstamp_precision.argtypes = [ctypes.c_void_p, ctypes.c_int]

pcap_set_protocol_linux: Any = _library.pcap_set_protocol_linux  # since libpcap 1.9
pcap_set_protocol_linux.restype = ctypes.c_int
pcap_set_protocol_linux.argtypes = [ctypes.c_void_p, ctypes.c_int]

_libc = ctypes.CDLL(None, use_errno=True)


def _libc_function(name: str, restype: Any, *argtypes: Any) -> Any:
    function = getattr(_libc, name)
    function.restype = restype
    function.argtypes = argtypes
    return function


fdopen = _libc_function("fdopen", ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
fflush = _libc_function("fflush", ctypes.c_int, ctypes.c_void_p)
ferror = _libc_function("ferror", ctypes.c_int, ctypes.c_void_p)
fclose = _libc_function("fclose", ctypes.c_int, ctypes.c_void_p)
_setvbuf = _libc_function("setvbuf", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)


def set_buffer(stream: int, buffer: Any) -> None:
    """Give a stdio stream ``buffer`` to collect writes in; the caller keeps it alive until the stream is closed.

    The buffer must be the caller's: for a null pointer glibc ignores the size.
    """
    _setvbuf(stream, ctypes.addressof(buffer), _IOFBF, ctypes.sizeof(buffer))
