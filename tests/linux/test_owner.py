"""Root below a prefix of somebody else's. Who becomes somebody else does so in a process of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux.owner import owner, seen_by, stranger
from agent.linux.users import resolve_user
from tests.linux.processes import become_user_with, scripted

NOBODY = 65534

PREAMBLE = """
import os, sys
from pathlib import Path
from agent.linux import libc
from agent.linux.capabilities import ON_FILES, withhold
from agent.linux.owner import owner, step_down
from agent.linux.spawn import SpawnRequest, run
"""


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory that belongs to nobody, where nobody can get to."""
    directory = Path(tempfile.mkdtemp(prefix="theirs-"))
    directory.chmod(0o755)
    os.chown(directory, NOBODY, NOBODY)
    yield directory
    shutil.rmtree(directory)


def test_a_prefix_has_an_owner_if_it_is_somebody_elses(theirs: Path, tmp_path: Path) -> None:
    found = owner(theirs)
    assert found is not None
    assert (found.uid, found.name) == (NOBODY, "nobody")
    assert owner(tmp_path) is None
    assert owner(tmp_path / "none") is None
    assert owner(tmp_path / "none", theirs) == found
    assert owner(tmp_path, theirs) is None, "the first that is there decides"


def test_who_may_not_become_the_owner_stays_who_he_is(theirs: Path) -> None:
    asked = f"print(owner(Path({str(theirs)!r})), os.getuid())"
    told = scripted(f"{PREAMBLE}{become_user_with('CAP_NET_RAW')}\n{asked}")
    assert told.startswith("None ") and told != "None 0\n"
    assert scripted(f"{PREAMBLE}libc.capset(1, 1, 0)  # CAP_CHOWN\n{asked}") == "None 0\n"


def test_what_root_imports_meanwhile_may_lie_where_the_owner_cannot_read(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden.py").write_text("import os\nAS = os.geteuid()\n")
    tmp_path.chmod(0o700)
    told = scripted(
        f"""{PREAMBLE}
from agent.linux.owner import seen_by
sys.path.insert(0, {str(tmp_path)!r})
with seen_by(owner(Path({str(theirs)!r}))):
    import hidden
    from wsgiref import util
    print(hidden.AS, os.geteuid(), util.__name__)
    try:
        open({str(tmp_path / "hidden.py")!r})
    except PermissionError:
        print("not read")
print(os.geteuid(), __import__ is __builtins__.__import__)
"""
    )
    assert told == f"0 {NOBODY} wsgiref.util\nnot read\n0 True\n"


def test_root_sees_with_the_eyes_of_the_owner_and_is_root_again(theirs: Path) -> None:
    closed, open_ = theirs / "closed", theirs / "open"
    for path, mode in ((closed, 0o600), (open_, 0o644)):
        path.write_text("text")
        path.chmod(mode)
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with seen_by(resolve_user("nobody", None)):
        assert open_.read_text() == "text"
        with pytest.raises(PermissionError):
            closed.read_text()
        assert not os.access(closed, os.R_OK, effective_ids=True)
        with seen_by(resolve_user("nobody", None)):
            assert open_.read_text() == "text"
        with pytest.raises(PermissionError):
            closed.read_text()
    with pytest.raises(ZeroDivisionError), seen_by(resolve_user("nobody", None)):
        _ = 1 / 0
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    assert closed.read_text() == "text"
    with seen_by(None):
        assert closed.read_text() == "text"


def test_eyes_may_be_changed_and_kept_while_others_look(theirs: Path) -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    nobody, daemon = resolve_user("nobody", None), resolve_user("daemon", None)
    with seen_by(nobody):
        for user in (nobody, daemon):
            with seen_by(user):
                assert (os.geteuid(), os.getegid(), os.getgroups()) == (user.uid, user.gid, list(user.groups))
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (nobody.uid, nobody.gid, list(nobody.groups))
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_root_steps_down_to_the_owner_and_its_children_hold_nothing(theirs: Path) -> None:
    told = scripted(f"""{PREAMBLE}
held = libc.capget()[1]
step_down(owner(Path({str(theirs)!r})))
print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ["USER"])
print(libc.capget()[:2] == (held & ~ON_FILES, held))
try:
    Path("/etc/shadow").read_text()
except PermissionError as error:
    print(error.strerror)
withhold()
argv = ["sh", "-c", "id -un; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status | tr -d '0\\\\n'"]
print(run(SpawnRequest(argv=argv, environment={{"PATH": "/usr/bin:/bin"}}), 10).stdout.decode())
request = SpawnRequest(argv=["id", "-un"], environment={{"PATH": "/usr/bin:/bin"}}, user="daemon")
print(run(request, 10).stdout.decode())
""")
    assert told.split("\n") == [
        "(65534, 65534, 65534) (65534, 65534, 65534) [65534] nobody",
        "True",
        "Permission denied",
        "nobody",
        "CapPrm:\tCapEff:\tCapAmb:\t",
        "daemon",
        "",
        "",
    ]


def test_a_stranger_is_neither_root_nor_whose_the_prefix_is(theirs: Path, tmp_path: Path) -> None:
    ours = Path(tempfile.mkdtemp(prefix="ours-"))
    ours.chmod(0o755)
    assert not stranger(ours, theirs)
    with seen_by(resolve_user("nobody", None)):
        assert stranger(ours) and stranger(ours / "none", ours, theirs) and not stranger(theirs, ours)
        assert not stranger(theirs / "none"), "where there is no prefix nobody is a stranger to it"
        assert not stranger()
    ours.chmod(0o700)
    with seen_by(resolve_user("nobody", None)):
        assert stranger(ours / "run")
    ours.rmdir()
