"""The order in which the probes of a chunk are sent: every one once, neighbours far apart, and the same order again
from the same seed. Pure.

A Feistel network permutes a rectangle of a × b numbers, a and b near the square root of how many there are: in turn
one coordinate is shifted by a keyed function of the other, which can always be undone, so it is a bijection. The few
numbers of the rectangle that are too large are sent through again until they are not ("cycle walking"; both: Black and
Rogaway, Ciphers with Arbitrary Finite Domains, 2002). So any piece of the order can be made without those before it.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterator
from math import isqrt
from typing import Final

ROUNDS: Final = 6
"""Even. Far more than it takes to spread load; this hides nothing."""


class Permutation:
    """A bijection of ``range(size)``, decided by ``seed``. At 1 << 20 it takes 24 KiB.

    Raises ``ValueError`` for a size below 1 or above 1 << 32.
    """

    __slots__ = ("_high", "_low", "_tables", "size")

    def __init__(self, size: int, seed: bytes) -> None:
        if not 1 <= size <= 1 << 32:
            raise ValueError(f"{size} probes cannot be put in an order")
        self.size = size
        self._high = isqrt(size - 1) + 1  # at least the root
        self._low = -(-size // self._high)
        self._tables = tuple(
            _shifts(
                seed, number, self._high if number % 2 == 0 else self._low, self._low if number % 2 == 0 else self._high
            )
            for number in range(ROUNDS)
        )

    def __getitem__(self, position: int) -> int:
        """What stands at ``position``, which is from 0 to ``size - 1``."""
        if not 0 <= position < self.size:
            raise IndexError(position)
        return next(self.items(position, position + 1))

    def items(self, start: int, stop: int) -> Iterator[int]:
        """What stands at the positions from ``start`` up to, not including, ``stop``."""
        high_size, low_size, size = self._high, self._low, self.size
        one, two, three, four, five, six = self._tables
        for position in range(start, stop):
            number = position
            while True:
                high, low = divmod(number, low_size)
                low = (low + one[high]) % low_size
                high = (high + two[low]) % high_size
                low = (low + three[high]) % low_size
                high = (high + four[low]) % high_size
                low = (low + five[high]) % low_size
                high = (high + six[low]) % high_size
                number = high * low_size + low
                if number < size:
                    break
            yield number


def _shifts(seed: bytes, number: int, count: int, modulus: int) -> array[int]:
    """The keyed function of one round as a table: ``count`` numbers below ``modulus``."""
    stream = hashlib.shake_128(b"scan-order-1" + number.to_bytes(1, "big") + seed).digest(8 * count)
    wide = array("Q", stream)
    if sys.byteorder == "big":
        wide.byteswap()
    return array("I", (value % modulus for value in wide))
