from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.control.access import Role
from agent.control.admission import PER_USER, RESERVED, STRANGERS, TOTAL, Admission

WHO = st.sampled_from([(0, "admin"), (1, "reader"), (2, "reader"), (3, "stranger"), (4, "stranger")])


@settings(deadline=None)
@given(steps=st.lists(st.tuples(WHO, st.booleans()), max_size=120))
def test_no_bound_is_ever_exceeded_and_places_given_back_are_free(steps: list[tuple[tuple[int, Role], bool]]) -> None:
    admission = Admission(total=10, reserved=3, per_user=5, strangers=4)
    inside: Counter[tuple[int, Role]] = Counter()
    for who, enters in steps:
        if not enters:
            if inside[who]:
                admission.leave(*who)
                inside[who] -= 1
            continue
        others = sum(count for (_, role), count in inside.items() if role != "admin")
        strangers = sum(count for (_, role), count in inside.items() if role == "stranger")
        room = inside.total() < 10
        if who[1] != "admin":
            room = inside.total() < 7 and inside[who] < 5 and (who[1] == "reader" or strangers < 4)
            assert others <= 7
        reason = admission.enter(*who)
        assert (reason is None) == room
        inside[who] += reason is None
        assert admission.taken == inside.total() <= 10


def test_whatever_others_do_an_administrator_finds_a_place() -> None:
    admission = Admission()
    for uid in range(1, 1000):
        for role in ("reader", "stranger"):
            while admission.enter(uid, role) is None:
                pass
    assert admission.taken == TOTAL - RESERVED
    assert [admission.enter(0, "admin") for _ in range(RESERVED + 1)] == [None] * RESERVED + [
        f"all {TOTAL} connections are taken"
    ]


def test_one_user_gets_a_share_and_is_told_so() -> None:
    admission = Admission()
    assert [admission.enter(7, "reader") for _ in range(PER_USER)] == [None] * PER_USER
    assert admission.enter(7, "reader") == "user lp (7) has 64 connections open, which is all one user may have"
    assert admission.enter(8, "reader") is None


def test_people_without_any_right_share_a_few_places() -> None:
    admission = Admission()
    admitted = sum(admission.enter(uid, "stranger") is None for uid in range(1000, 1200))
    assert admitted == STRANGERS
