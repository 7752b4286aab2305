"""One libpcap handle on one interface: opened with everything set, read without blocking, closed.

Read by ``dispatch`` only when ``fd`` is readable, or to find that there is nothing. A blocking read on an idle link
never returns (the kernel wakes nobody for an empty ring block), so the loop of the worker does the waiting.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from agent.errors import CaptureFailure, ConfigurationError
from agent.workers.capture import binding, socket_filter
from agent.workers.capture.binding import pcap
from agent.workers.capture.expression_error import explain
from agent.workers.capture.fanout import Groups, NoGroup

#: After how many milliseconds the kernel hands over a ring block that is not full. Zero would mean never.
BLOCK_TIMEOUT_MS = 100

#: The name of the pseudo-interface that stands for all of them.
ANY = "any"

_NO_NETWORK = ("dbus-system", "dbus-session", "dbus://")
"""What libpcap takes for a message bus (pcap-dbus.c), by a library that the bundle leaves out."""

_BPF_MAXINSNS = 4096  # linux/bpf_common.h: the longest filter the kernel takes
_SOL_PACKET = 263  # linux/socket.h
_PACKET_IGNORE_OUTGOING = 23  # linux/if_packet.h, since Linux 4.20
_SIOCGIFINDEX = 0x8933  # linux/sockios.h
_ETH_P_ALL = 0x0003  # linux/if_ether.h
_NOTHING = 0xFFFF  # RFC 1701: reserved, so nothing is sent with this Ethernet type
_DROP_COUNTERS = ("rx_missed_errors", "rx_fifo_errors")


class NoSuchInterface(ConfigurationError):
    """No interface has this name."""


class InterfaceLost(CaptureFailure):
    """The interface is not there, not up, or its handle is broken: open it again later."""


@dataclass(frozen=True, slots=True)
class Options:
    """``snaplen``: bytes kept of a packet, 1..262144. ``ring``: bytes of kernel memory. ``filter``: pcap-filter(7).

    ``groups``: those with whom the packets of each interface are shared, if anybody.
    """

    snaplen: int
    promiscuous: bool
    ring: int
    filter: str
    groups: Groups | None = None


class Handle:
    """An activated handle.

    Raises ``NoSuchInterface``, ``ConfigurationError`` when the filter is wrong, ``InterfaceLost`` when the interface is
    down, ``CaptureFailure`` when capturing is not permitted or fails otherwise.
    """

    def __init__(self, interface: str, options: Options) -> None:
        self.interface = interface
        self.options = options
        if interface.startswith(_NO_NETWORK):
            raise ConfigurationError(f"interface {interface}: libpcap takes this name for a message bus")
        errbuf = ctypes.create_string_buffer(binding.ERRBUF_SIZE)
        self._pcap = pcap.pcap_create(os.fsencode(interface), errbuf)
        if not self._pcap:
            raise CaptureFailure(f"{interface}: {_text(errbuf.value)}")
        try:
            self._activate(options)
            self._install(options.filter)
            if pcap.pcap_setnonblock(self._pcap, 1, errbuf) != 0:
                raise CaptureFailure(f"{interface}: {_text(errbuf.value)}")
            #: Readable when a ring block is ready.
            self.fd: int = pcap.pcap_get_selectable_fd(self._pcap)
            if interface == "lo":
                self._ignore_outgoing()
            #: Which interface this is, whatever it is called by now. 0 for ``any``.
            self.index = self._index()
            #: Bytes of kernel memory that hold packets until they are read: what was granted.
            self.ring = _mapped(self.fd)
            #: So many packets come first that may have gone to another of our group as well.
            self.doubtful = 0
            self._begin()
        except BaseException:
            self.close()
            raise

    def _activate(self, options: Options) -> None:
        # Nanoseconds are refused only by devices without a clock; then microseconds stay in force.
        binding.pcap_set_tstamp_precision(self._pcap, binding.TSTAMP_PRECISION_NANO)
        pcap.pcap_set_snaplen(self._pcap, options.snaplen)
        pcap.pcap_set_promisc(self._pcap, int(options.promiscuous))
        pcap.pcap_set_timeout(self._pcap, BLOCK_TIMEOUT_MS)
        pcap.pcap_set_buffer_size(self._pcap, options.ring)
        if self.interface != ANY:
            binding.pcap_set_protocol_linux(self._pcap, _NOTHING)
        status = pcap.pcap_activate(self._pcap)
        if status >= 0:  # above zero: a warning, such as promiscuous mode not being supported
            return
        name = self.interface
        if status == binding.ERROR_NO_SUCH_DEVICE:
            known = ", ".join(sorted(known for _, known in socket.if_nameindex())[:20])
            raise NoSuchInterface(
                f'interface {name} does not exist; this host has {known}; a pattern such as "{name}*" would wait for it'
            )
        if status in (binding.ERROR_PERM_DENIED, binding.ERROR_PROMISC_PERM_DENIED):
            raise CaptureFailure(f"capturing on {name} needs CAP_NET_RAW: run as root or with that capability")
        if status == binding.ERROR_IFACE_NOT_UP:
            raise InterfaceLost(f"{name}: the interface is not up")
        raise CaptureFailure(f"{name}: {self._error()}")

    def _install(self, text: str) -> None:
        """Compile and attach the filter. The empty one too: what it returns makes the kernel cut to the snaplen."""
        program = pcap.bpf_program()
        compiled = pcap.pcap_compile(
            self._pcap, ctypes.byref(program), text.encode(), 1, ctypes.c_int(binding.NETMASK_UNKNOWN).value
        )
        if compiled != 0:
            raise ConfigurationError(f"{self.interface}: {explain(self._pcap, text, self._error())}")
        try:
            if program.bf_len > _BPF_MAXINSNS:
                raise ConfigurationError(
                    f"{self.interface}: the filter compiles to {program.bf_len} instructions, "
                    f"and the kernel takes at most {_BPF_MAXINSNS}"
                )
            if pcap.pcap_setfilter(self._pcap, ctypes.byref(program)) != 0:
                raise CaptureFailure(f"{self.interface}: the filter cannot be attached: {self._error()}")
        finally:
            pcap.pcap_freecode(ctypes.byref(program))

    def _ignore_outgoing(self) -> None:
        """Loopback shows each packet going out and coming in. libpcap skips the former: do not store it.

        Without that the ring holds half as much, and what was received counts double.
        """
        with socket.socket(fileno=os.dup(self.fd)) as packets:
            packets.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)

    def _begin(self) -> None:
        """Take packets from now on.

        Until here the socket listened for a protocol that is never spoken. Else packets would be in the ring that were
        counted before the filter was in force, and that libpcap would then refuse without telling how many. Not for
        ``any``: Python cannot bind to it, and what was counted there is no measure anyway.

        Until the socket is in its group it sees all packets, which the others of the group have. Therefore it refuses
        them until right before it joins; had it refused them for longer, its share would be lost. What comes in that
        instant is ``doubtful``. For ``any`` it is not known which packets these are.
        """
        groups = self.options.groups
        try:
            with socket.socket(fileno=os.dup(self.fd)) as packets:
                if groups is None:
                    if self.interface != ANY:
                        packets.bind((self.interface, _ETH_P_ALL))
                    return
                program = socket_filter.attached(self.fd)
                self.seal()
                if self.interface != ANY:
                    packets.bind((self.interface, _ETH_P_ALL))
                shared = groups.join(
                    packets,
                    self.index,
                    incoming=self.interface == "lo",
                    ready=lambda: socket_filter.attach(packets, program),
                )
                received, dropped = self.statistics()
                self.doubtful = received - dropped if shared and self.interface != ANY else 0
        except NoGroup:
            raise InterfaceLost(f"{self.interface}: the capture itself has not opened it yet") from None
        except OSError as error:
            raise InterfaceLost(f"{self.interface}: {error.strerror}") from error

    def dumper(self, stream: int) -> int:
        """Begin a pcap file on a stdio ``stream``; returns what ``pcap_dump`` takes. Raises ``CaptureFailure``."""
        dumper: int | None = binding.pcap_dump_fopen(self._pcap, stream)
        if dumper is None:
            raise CaptureFailure(f"{self.interface}: {self._error()}")
        return dumper

    def dispatch(self, user: object, count: int) -> int:
        """Write up to ``count`` packets that are ready to the dumper; returns how many. Never blocks.

        ``user`` is the dumper as a pointer to bytes. Raises ``InterfaceLost``.
        """
        done: int = pcap.pcap_dispatch(self._pcap, count, binding.DUMP, user)
        if done < 0:
            raise InterfaceLost(f"{self.interface}: {self._error()}")
        return done

    def statistics(self) -> tuple[int, int]:
        """Packets that passed the filter, and of these the ones that found the ring full. Both wrap at 32 bits."""
        stats = pcap.pcap_stat()
        if pcap.pcap_stats(self._pcap, ctypes.byref(stats)) != 0:
            raise InterfaceLost(f"{self.interface}: {self._error()}")
        return stats.ps_recv, stats.ps_drop

    def present(self) -> bool:
        """Whether the interface of this name is still the one that was opened."""
        return self._index() == self.index

    def seal(self) -> None:
        """Let the kernel store no further packet, so that what is in the ring can be read to its end.

        Goes past libpcap, which would apply a new filter to the packets already stored as well.
        """
        with socket.socket(fileno=os.dup(self.fd)) as packets:
            socket_filter.attach(packets, socket_filter.NOTHING)

    def close(self) -> None:
        """Release the ring and the socket. May be called again."""
        if self._pcap:
            pcap.pcap_close(self._pcap)
            self._pcap = None

    def _index(self) -> int:
        """The number of the interface that has the name now: 0 for ``any``, -1 when there is none.

        Asked of our own socket, so that it needs no new descriptor and is about our own network namespace.
        """
        if self.interface == ANY:
            return 0
        request = struct.pack("16si20x", os.fsencode(self.interface), 0)  # struct ifreq, netdevice(7)
        try:
            answer = fcntl.ioctl(self.fd, _SIOCGIFINDEX, request)
        except OSError:
            return -1
        return int(struct.unpack_from("16si", answer)[1])

    def _error(self) -> str:
        return _text(pcap.pcap_geterr(self._pcap))


def device_drops(interface: str) -> int | None:
    """Packets the device lost before the kernel saw them, since it exists; ``None`` where nothing counts them.

    The sum that libpcap takes for ``ps_ifdrop`` (``linux_if_drops`` of pcap-linux.c), which it leaves at zero unless
    the handle is promiscuous: what found no buffer of the device (``rx_missed_errors``) or of the host
    (``rx_fifo_errors``), by struct rtnl_link_stats64 of linux/if_link.h. Not ``rx_dropped``: the core of the kernel
    counts there whatever nobody but a capture took, such as frames of a VLAN that is not configured, after the capture
    has had it. Nor ``rx_errors``, which are frames that were damaged.
    """
    directory = Path("/sys/class/net") / interface / "statistics"
    try:
        return sum(int((directory / name).read_text()) for name in _DROP_COUNTERS)
    except (OSError, ValueError):
        return None


def _mapped(fd: int) -> int:
    """Bytes of memory that are mapped of a socket: its ring, whatever size was asked for. proc(5), /proc/pid/maps."""
    inode = str(os.fstat(fd).st_ino)
    total = 0
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        span, _, _, _, number, *_ = line.decode("ascii", "replace").split(None, 5)
        if number == inode and line.endswith(b"socket:[%s]" % inode.encode()):
            begin, end = span.split("-")
            total += int(end, 16) - int(begin, 16)
    return total


def _text(message: bytes | None) -> str:
    return (message or b"unknown error").decode("utf-8", "replace")
