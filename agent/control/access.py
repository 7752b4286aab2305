"""Who may do what on the control socket, decided without I/O. (Only whoever is refused is looked up, once, by name.)

The socket's file may be opened by everybody: what counts is who connected, as the kernel says (SO_PEERCRED). root and
the agent's own user may do everything, members of the declared group may read, and nobody else anything.

A browser is not a user. A page that makes one talk to this socket (through a proxy, or by rebinding a name) shows
itself by ``Origin``, ``Referer`` or a foreign ``Host``, and is refused before anything else is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from agent.errors import RequestRefused
from agent.linux.users import named

Access = Literal["read", "admin"]
Role = Literal["admin", "reader", "stranger"]

HOSTS = (b"", b"localhost", b"agent")
"""The names that a request may be meant for."""


def role_of(uid: int, *, agent_uid: int, in_reading_group: bool) -> Role:
    """What the peer with that user id is to an agent that runs as ``agent_uid``."""
    if uid in (0, agent_uid):
        return "admin"
    return "reader" if in_reading_group else "stranger"


def check_role(role: Role, needed: Access, *, uid: int, group: str | None) -> None:
    """Raise ``RequestRefused`` (403) unless the role covers the access class of a route."""
    if role == "admin" or (role == "reader" and needed == "read"):
        return
    if role == "reader":
        raise RequestRefused(403, f"user {named(uid)} may only read: this takes root or the agent's own user")
    if group is None:
        who = "root and the agent's own user may (`[agent] group` in env.toml lets a group read)"
    else:
        who = f"root, the agent's own user and members of the group {group} may"
    raise RequestRefused(403, f"user {named(uid)} may not talk to this agent: {who}")


def check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ``RequestRefused`` for what a browser sends: 403, or 421 for a foreign ``Host`` (RFC 9110, 15.5.20)."""
    for name, value in headers:
        if name in (b"origin", b"referer"):
            raise RequestRefused(403, f"requests with {name.decode().title()} are refused: no web page may talk here")
        if name == b"host" and value.strip().lower() not in HOSTS:
            raise RequestRefused(421, "this agent answers to the host name localhost, and to no other")
