"""Files as they are found on a disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.declaration.sources import LARGEST, Disk, Unreadable
from tests.linux.processes import BECOME_NOBODY, ROOT


def why_not(path: Path) -> str:
    with pytest.raises(Unreadable) as error:
        Disk().read(path)
    return str(error.value)


def test_a_file_is_read_as_utf8(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("é = 1\r\n".encode())
    assert Disk().read(tmp_path / "f") == "é = 1\r\n"


def test_what_is_no_readable_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a\nb = '\xe9'")
    (tmp_path / "huge").write_bytes(b"#" * (LARGEST + 1))
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    assert why_not(tmp_path / "none") == "does not exist"
    assert why_not(tmp_path / "latin" / "x") == "does not exist"
    assert why_not(tmp_path) == "is a directory"
    assert why_not(tmp_path / "latin") == "is not UTF-8: byte 0xe9 on line 2; save it as UTF-8"
    assert why_not(tmp_path / "huge") == "is larger than 1048576 bytes"
    assert why_not(tmp_path / "fifo") == "is not a regular file"
    assert why_not(tmp_path / "loop") == "cannot be read: Too many levels of symbolic links"
    assert why_not(tmp_path / "nul\0") == "cannot be read: not a valid path"
    assert why_not(Path("/dev/zero")) == "is not a regular file"


def test_only_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    for path, missing in ((tmp_path / "none", True), (tmp_path, False)):
        with pytest.raises(Unreadable) as error:
            Disk().read(path)
        assert error.value.missing is missing


def test_projects_are_the_toml_files_in_order(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", ".hidden.toml", "a.toml~", "readme"):
        (tmp_path / name).touch()
    assert Disk().projects(tmp_path) == [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert Disk().projects(tmp_path / "none") == []


def test_a_file_in_place_of_the_projects_is_not_overlooked(tmp_path: Path) -> None:
    (tmp_path / "projects").touch()
    with pytest.raises(Unreadable, match="is not a directory"):
        Disk().projects(tmp_path / "projects")


def test_a_secret_is_a_regular_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    assert Disk().objection(secret, credential=False) == f"{secret} does not exist, nor is there a credential token"
    secret.touch(mode=0o600)
    assert Disk().objection(secret, credential=False) is None
    secret.chmod(0o640)
    objection = Disk().objection(secret, credential=False)
    assert objection == f"{secret} is open to others (mode 0640); chmod 0600 it"
    assert Disk().objection(tmp_path, credential=False) == f"{tmp_path} is not a regular file"


def test_whom_a_credential_is_open_to_is_systemds_to_say(tmp_path: Path) -> None:
    """Its group bits may be the mask of an access control list."""
    (tmp_path / "token").touch(mode=0o440)
    assert Disk().objection(tmp_path / "token", credential=True) is None
    assert Disk().objection(tmp_path, credential=True) == f"{tmp_path} is not a regular file"


def test_what_is_closed_to_this_user_is_withheld_and_no_secret_for_it(open_directory: Path) -> None:
    """And it is told who that is, and what would let the group have it that has the directory."""
    (open_directory / "token").write_text("swordfish")
    (open_directory / "token").chmod(0o600)
    for name, mode in (("closed", 0o700), ("key", 0o750), ("key/a b", 0o700), ("key/ours", 0o700)):
        (open_directory / name).mkdir(mode=mode)
    for name in ("env.toml", "a b/env.toml", "ours/env.toml"):
        (open_directory / "key" / name).touch(mode=0o600)
    for name in ("key", "key/ours"):
        os.chown(open_directory / name, 0, 65534)
    program = (
        "import sys\nfrom pathlib import Path\nfrom agent.declaration.sources import Disk, Unreadable\n"
        f"{BECOME_NOBODY}\n"
        "directory = Path(sys.argv[1])\n"
        "print(Disk().objection(directory / 'token', credential=False))\n"
        "for name in ('token', 'closed/env.toml', 'key/env.toml', 'key/a b/env.toml', 'key/ours/env.toml', 'none'):\n"
        "    try:\n        Disk().read(directory / name)\n"
        "    except Unreadable as error:\n        print(error, error.missing, error.withheld)\n"
        "stranger = Disk(stranger=True)\n"
        "print(stranger.objection(directory / 'token', credential=False))\n"
        "for name in ('closed/env.toml', 'key/env.toml'):\n"
        "    try:\n        stranger.read(directory / name)\n    except Unreadable as error:\n        print(error)\n"
    )
    command = [sys.executable, "-c", program, str(open_directory)]
    done = subprocess.run(command, env={"PYTHONPATH": ROOT}, capture_output=True, text=True, check=True)
    token, key, no = f"{open_directory}/token", f"{open_directory}/key", "may not be read by user nobody"
    assert done.stdout.splitlines() == [
        f"{token} {no}: chown nobody {token}, or make it a credential",
        f"{no} False True",
        f"{no}, who may not enter {open_directory}/closed False True",
        f"{no}: chgrp nogroup {key}/env.toml && chmod g+r {key}/env.toml False True",
        f"{no}, who may not enter {key}/a b: chgrp nogroup '{key}/a b' && chmod g+rx '{key}/a b' False True",
        f"{no}, who may not enter {key}/ours: chmod g+rx {key}/ours False True",
        "does not exist True False",
        f"{token} {no}: do it as root (sudo)",
        f"{no}, who may not enter {open_directory}/closed: do it as root (sudo)",
        f"{no}: do it as root (sudo)",
    ]


def test_the_host_tells_its_name_and_memory() -> None:
    assert Disk().server() == os.uname().nodename
    assert Disk().memory() > 64 * 1024**2
