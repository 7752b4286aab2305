"""Several processes that share the packets of an interface: packet(7), PACKET_FANOUT.

Their sockets are one group, to which the kernel hands each packet once. By the hash of its addresses and ports, so that
what belongs together comes to one process, in order. The capture itself makes a group for each interface, with an id
that the kernel finds free; the others must know it, and read it from memory that all of them share.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, MutableMapping

VARIABLE = "SERVICE_FANOUT"
"""What a member finds the number of the shared descriptor by, in its environment."""

_SOL_PACKET = 263  # linux/socket.h
_PACKET_FANOUT = 18  # linux/if_packet.h
_HASH = 0
_UNIQUE_ID = 0x2000
_IGNORE_OUTGOING = 0x4000  # since Linux 5.7: in a group the option of each socket counts for nothing
_SLOT = struct.Struct("=II")  # the index of an interface plus one, and the id of its group


class NoGroup(Exception):
    """The capture has not opened this interface yet."""


class Groups:
    """The groups of one capture. ``owner`` is true for the capture itself, which makes them; owns ``fd``."""

    def __init__(self, fd: int, *, owner: bool) -> None:
        self.fd = fd
        self.owner = owner

    def join(
        self, packets: socket.socket, index: int, *, incoming: bool = False, ready: Callable[[], None] = lambda: None
    ) -> bool:
        """Make a socket that is bound to the interface of this index one of its group; returns whether there was one.

        ``incoming``: packets are not wanted as they go out. ``ready`` is called right before it joins, once for each
        attempt. Raises ``NoGroup`` where there is none, which only the
        owner may make; ``OSError``.
        """
        flags = _IGNORE_OUTGOING if incoming else 0
        known = self._known().get(index)
        if known is not None:
            try:
                _join(packets, known, flags, ready)
            except OSError:
                if not self.owner:
                    raise
            else:
                return True
        if not self.owner:
            raise NoGroup
        _join(packets, 0, _UNIQUE_ID | flags, ready)
        found = packets.getsockopt(_SOL_PACKET, _PACKET_FANOUT) & 0xFFFF
        os.pwrite(self.fd, _SLOT.pack(index + 1, found), self._slot(index) * _SLOT.size)
        return False

    def close(self) -> None:
        """Forget them. Those that are in a group stay in it."""
        os.close(self.fd)

    def _known(self) -> dict[int, int]:
        return {index: group for index, group in self._slots() if index >= 0}

    def _slots(self) -> list[tuple[int, int]]:
        """The index of an interface and its group, slot by slot."""
        data = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        whole = len(data) // _SLOT.size * _SLOT.size
        return [(index - 1, group) for index, group in _SLOT.iter_unpack(data[:whole])]

    def _slot(self, index: int) -> int:
        """Where the group of this interface is written: where it was, or else that of one that is gone, or at the end.

        Interfaces come and go by the thousand where containers do, and their indexes are hardly ever used again.
        """
        slots = [known for known, _ in self._slots()]
        if index in slots:
            return slots.index(index)
        there = {number for number, _ in socket.if_nameindex()} | {0}  # 0 stands for all of them
        return next((slot for slot, known in enumerate(slots) if known not in there), len(slots))


def made() -> Groups:
    """The groups of a capture that has members."""
    return Groups(os.memfd_create("fanout", os.MFD_CLOEXEC), owner=True)


def inherited(environ: MutableMapping[str, str]) -> Groups:
    """Those that a member was given by the capture that started it."""
    fd = int(environ.pop(VARIABLE))
    os.set_inheritable(fd, False)
    return Groups(fd, owner=False)


def _join(packets: socket.socket, group: int, flags: int, ready: Callable[[], None]) -> None:
    wanted = struct.pack("=I", group | (_HASH | flags) << 16)
    ready()
    packets.setsockopt(_SOL_PACKET, _PACKET_FANOUT, wanted)
