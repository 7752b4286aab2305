"""How many connections the control socket takes, and from whom. Pure counting.

Whoever may open the socket's file could open all of its connections. So one user has a share, people without any right
have a small one together, and some places are always left for the administrator who comes to look what is wrong.
"""

from __future__ import annotations

from collections import Counter

from agent.control.access import Role
from agent.linux.users import named

TOTAL = 256
"""Connections in all."""

RESERVED = 16
"""Of these, for admins only."""

PER_USER = 64
"""At most for one user that is no admin."""

STRANGERS = 32
"""At most for all users together that have no right at all (each only learns that it has none)."""


class Admission:
    """The places, and who has taken them."""

    def __init__(
        self, total: int = TOTAL, reserved: int = RESERVED, per_user: int = PER_USER, strangers: int = STRANGERS
    ) -> None:
        self.taken = 0
        self._total = total
        self._reserved = reserved
        self._per_user = per_user
        self._strangers = strangers
        self._by_user: Counter[int] = Counter()
        self._by_role: Counter[Role] = Counter()

    def enter(self, uid: int, role: Role) -> str | None:
        """Take a place; if there is none, say why and take none."""
        if role != "admin":
            if self._by_user[uid] >= self._per_user:
                return f"user {named(uid)} has {self._per_user} connections open, which is all one user may have"
            if role == "stranger" and self._by_role[role] >= self._strangers:
                return "too many connections of users that may not talk to this agent"
        if self.taken >= self._total - (0 if role == "admin" else self._reserved):
            return f"all {self.taken} connections are taken"
        self.taken += 1
        self._by_user[uid] += 1
        self._by_role[role] += 1
        return None

    def leave(self, uid: int, role: Role) -> None:
        """Give a place back that ``enter`` gave."""
        self.taken -= 1
        self._by_role[role] -= 1
        self._by_user[uid] -= 1
        if not self._by_user[uid]:
            del self._by_user[uid]
