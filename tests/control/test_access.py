from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.control.access import check_headers, check_role, role_of
from agent.errors import RequestRefused

UIDS = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(uid=UIDS, agent_uid=UIDS, member=st.booleans())
def test_only_root_and_the_agents_own_user_are_admins(uid: int, agent_uid: int, member: bool) -> None:
    role = role_of(uid, agent_uid=agent_uid, in_reading_group=member)
    assert (role == "admin") == (uid in (0, agent_uid))
    if role != "admin":
        assert role == ("reader" if member else "stranger")


def test_an_admin_may_do_everything_and_a_reader_may_read() -> None:
    check_role("admin", "admin", uid=0, group=None)
    check_role("admin", "read", uid=0, group=None)
    check_role("reader", "read", uid=1000, group="ops")


@pytest.mark.parametrize(
    ("role", "needed", "group", "message"),
    [
        ("reader", "admin", "ops", "user lp (7) may only read: this takes root or the agent's own user"),
        (
            "stranger",
            "read",
            "ops",
            "user lp (7) may not talk to this agent: root, the agent's own user and members of the group ops may",
        ),
        (
            "stranger",
            "read",
            None,
            "user lp (7) may not talk to this agent: root and the agent's own user may"
            " (`[agent] group` in env.toml lets a group read)",
        ),
    ],
)
def test_a_refusal_says_who_may(role: str, needed: str, group: str | None, message: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_role(role, needed, uid=7, group=group)  # type: ignore[arg-type]  # plain text in the table above
    assert (caught.value.status, str(caught.value)) == (403, message)


@pytest.mark.parametrize("host", [b"", b"localhost", b"LocalHost", b"agent", b" localhost "])
def test_requests_for_this_agent_pass(host: bytes) -> None:
    check_headers([(b"host", host), (b"user-agent", b"curl/7.88.1"), (b"accept", b"*/*")])


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ((b"origin", b"http://localhost"), 403),
        ((b"origin", b"null"), 403),
        ((b"referer", b"http://localhost/"), 403),
        ((b"host", b"evil.example"), 421),
        ((b"host", b"localhost.evil.example"), 421),
        ((b"host", b"127.0.0.1"), 421),
    ],
)
def test_what_only_a_browser_would_send_is_refused(header: tuple[bytes, bytes], status: int) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_headers([(b"host", b"localhost"), header])
    assert caught.value.status == status
