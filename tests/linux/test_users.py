from __future__ import annotations

import grp
import os
import pwd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SpawnFailed
from agent.linux.users import group_name, named, resolve_user


def test_a_user_brings_group_groups_and_home() -> None:
    entry = pwd.getpwnam("nobody")
    found = resolve_user("nobody", None)
    assert (found.uid, found.gid, found.name) == (entry.pw_uid, entry.pw_gid, "nobody")
    assert set(found.groups) == set(os.getgrouplist("nobody", entry.pw_gid))
    assert found.environment == {
        "HOME": entry.pw_dir,
        "USER": "nobody",
        "LOGNAME": "nobody",
        "SHELL": entry.pw_shell,
    }


def test_numbers_mean_the_same_as_names() -> None:
    entry = pwd.getpwnam("nobody")
    assert resolve_user(str(entry.pw_uid), str(entry.pw_gid)) == resolve_user("nobody", None)


def test_a_number_that_nobody_has_is_taken_as_it_is() -> None:
    found = resolve_user("54321", None)
    assert (found.uid, found.gid, found.groups, found.home) == (54321, 54321, (54321,), "/")


def test_a_message_has_the_name_and_the_number_of_a_user() -> None:
    assert named(65534) == "nobody (65534)"
    assert named(54321) == "54321"


def test_a_group_replaces_the_users_own() -> None:
    found = resolve_user("nobody", "daemon")
    assert found.gid == grp.getgrnam("daemon").gr_gid
    assert found.gid in found.groups


def test_without_a_user_we_stay_who_we_are_with_that_group_only() -> None:
    found = resolve_user(None, "daemon")
    assert found.uid == os.geteuid()
    assert found.groups == (grp.getgrnam("daemon").gr_gid,)


def test_who_we_are_already_needs_no_change() -> None:
    assert resolve_user(None, str(os.getegid())).current == (set(os.getgroups()) <= {os.getegid()})
    assert not resolve_user("nobody", None).current


@settings(deadline=None)
@given(
    st.text(max_size=20).filter(lambda name: not (name.isascii() and name.isdigit()))
    | st.sampled_from(["4294967295", "9" * 5000, "-1", "٣"])
)
def test_whatever_is_no_user_and_no_group_is_a_permanent_failure(name: str) -> None:
    names = {entry.pw_name for entry in pwd.getpwall()} | {entry.gr_name for entry in grp.getgrall()}
    if name in names:
        return
    for user, group in ((name, None), ("nobody", name)):
        with pytest.raises(SpawnFailed, match=r"^no such (user|group): ") as failure:
            resolve_user(user, group)
        assert failure.value.permanent


def test_a_group_is_called_by_its_name_or_by_its_number() -> None:
    assert group_name(0) == "root"
    assert group_name(2**31) == str(2**31)
