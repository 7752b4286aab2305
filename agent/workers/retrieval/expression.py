"""What an expression of pcap-filter(7) means, as far as an index can tell: parts of it, and how they are joined."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec


class Direction(Enum):
    """Which of the two addresses or ports has to be as wanted."""

    SOURCE = "src"
    DESTINATION = "dst"
    EITHER = "src or dst"
    BOTH = "src and dst"


class Unknown(msgspec.Struct, frozen=True):
    """True or false: an index cannot tell."""


class Ethertype(msgspec.Struct, frozen=True):
    """What follows the link header and ``depth`` tags is this."""

    number: int
    depth: int


class Protocol(msgspec.Struct, frozen=True):
    """An IP packet of one of these versions (4, 6) whose header names this protocol."""

    number: int
    versions: tuple[int, ...]
    depth: int


class Address(msgspec.Struct, frozen=True):
    """An address that, masked, is ``value``. ``ethertypes`` are those of the packets it is looked for in.

    For IPv6 ``value`` and ``mask`` have 128 bits, else 32.
    """

    value: int
    mask: int
    ethertypes: tuple[int, ...]
    direction: Direction
    depth: int


class Ports(msgspec.Struct, frozen=True):
    """A port from ``low`` to ``high``, both included, of one of these protocols.

    ``certain`` is false when it was given by a name, which may mean one protocol only.
    """

    low: int
    high: int
    protocols: tuple[int, ...]
    direction: Direction
    certain: bool
    depth: int


class Vlan(msgspec.Struct, frozen=True):
    """There is a tag behind ``depth`` others, with this identifier unless that is ``None``."""

    number: int | None
    depth: int


class Not(msgspec.Struct, frozen=True):
    """The opposite."""

    part: Expression


class And(msgspec.Struct, frozen=True):
    """Both."""

    left: Expression
    right: Expression


class Or(msgspec.Struct, frozen=True):
    """One of the two, or both."""

    left: Expression
    right: Expression


class Everything(msgspec.Struct, frozen=True):
    """What an empty expression means."""


Expression: TypeAlias = Unknown | Ethertype | Protocol | Address | Ports | Vlan | Not | And | Or | Everything
