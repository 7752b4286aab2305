"""What a service finds in place, whose it is, and what is left afterwards."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.declaration.model import Command, Heartbeat
from agent.errors import SpawnFailed
from agent.paths import Paths
from agent.supervisor.prepare import SECRET_LIMIT, drop_secrets, prepare, tidy, write_settings

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return lay_out(tmp_path / "srv")


def lay_out(prefix: Path) -> Paths:
    made = Paths.of(prefix)
    for directory in (made.run, made.tmp, made.secrets):
        directory.mkdir(parents=True)
    (made.secrets / "token").write_text("swordfish")
    return made


def service(**keys: Any) -> Command:
    return Command(name="api", command=("/bin/true",), **keys)


def look(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_a_service_of_the_agents_own_user_finds_its_spool_and_settings(paths: Paths) -> None:
    assert prepare(service(), paths) == os.getuid()
    assert paths.data("api").is_dir()
    assert look(paths.config("api"))[2] == 0o640
    assert not paths.heartbeat("api").exists()
    assert not paths.secret_copies("api").exists()


def test_a_service_of_another_user_owns_what_is_laid_for_it(paths: Paths) -> None:
    declared = service(user="nobody", heartbeat=Heartbeat(), secrets=("token",))
    assert prepare(declared, paths) == NOBODY
    for path in (paths.data("api"), paths.config("api"), paths.heartbeat("api"), paths.secret_copies("api") / "token"):
        assert look(path)[:2] == (NOBODY, NOBODY), path
    assert look(paths.secret_copies("api") / "token")[2] == 0o400
    assert (paths.secret_copies("api") / "token").read_text() == "swordfish"


def test_what_is_copied_of_a_secret_is_the_credential_if_there_is_one(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "token").write_text("shibboleth")
    prepare(service(user="nobody", secrets=("token",)), paths._replace(credentials=tmp_path / "given"))
    assert (paths.secret_copies("api") / "token").read_text() == "shibboleth"
    assert look(paths.secret_copies("api") / "token") == (NOBODY, NOBODY, 0o400)


def test_the_settings_are_the_service_without_its_environment(paths: Paths) -> None:
    write_settings(service(environment={"PASSWORD": "swordfish"}, stop_timeout=7.0), paths)
    text = paths.config("api").read_bytes()
    assert b"swordfish" not in text
    assert msgspec.json.decode(text, type=Command).stop_timeout == 7.0


def test_what_is_in_place_is_left_alone(paths: Paths) -> None:
    declared = service(user="nobody", secrets=("token",))
    prepare(declared, paths)
    copy = paths.secret_copies("api") / "token"
    before = (copy.stat().st_ino, paths.config("api").stat().st_ino)
    prepare(declared, paths)
    assert (copy.stat().st_ino, paths.config("api").stat().st_ino) == before


def to_all(copy: Path, secret: Path) -> None:
    copy.chmod(0o444)


def to_root(copy: Path, secret: Path) -> None:
    os.chown(copy, 0, 0)


def another(copy: Path, secret: Path) -> None:
    secret.write_text("swordfish!")


def a_link(copy: Path, secret: Path) -> None:
    copy.unlink()
    copy.symlink_to(secret)


def a_fifo(copy: Path, secret: Path) -> None:
    copy.unlink()
    os.mkfifo(copy)


@pytest.mark.parametrize("spoil", [to_all, to_root, another, a_link, a_fifo])
def test_what_is_wrong_is_put_right(paths: Paths, spoil: Callable[[Path, Path], None]) -> None:
    declared = service(user="nobody", secrets=("token",))
    prepare(declared, paths)
    copy, secret = paths.secret_copies("api") / "token", paths.secrets / "token"
    spoil(copy, secret)
    prepare(declared, paths)
    assert not copy.is_symlink()
    assert look(copy) == (NOBODY, NOBODY, 0o400)
    assert copy.read_text() == secret.read_text()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_on_a_full_disk_a_service_that_ran_before_is_prepared_again(full_disk: Path) -> None:
    paths = lay_out(full_disk / "srv")
    declared = service(user="nobody", heartbeat=Heartbeat(), secrets=("token",))
    prepare(declared, paths)
    with (full_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert prepare(declared, paths) == NOBODY


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"user": "nobody_of_that_name"}, "no such user"),
        ({"user": "nobody", "secrets": ("absent",)}, "cannot read secret absent: No such file"),
        ({"user": "nobody", "secrets": ("directory",)}, "cannot read secret directory: Is a directory"),
        ({"user": "nobody", "secrets": ("huge",)}, "secret huge is larger than"),
    ],
    ids=["user", "absent", "directory", "huge"],
)
def test_what_no_retry_can_mend_is_said_to_be_permanent(paths: Paths, keys: dict[str, Any], why: str) -> None:
    (paths.secrets / "directory").mkdir()
    (paths.secrets / "huge").write_bytes(b"\0" * (SECRET_LIMIT + 1))
    with pytest.raises(SpawnFailed, match=why) as failure:
        prepare(service(**keys), paths)
    assert failure.value.permanent


AS_NOBODY = """
import os, sys
from agent.declaration.model import Command
from agent.errors import SpawnFailed
from agent.paths import Paths
from agent.supervisor.prepare import prepare
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    print(prepare(Command(name="api", command=("/bin/true",), user="root"), Paths.of(sys.argv[1])))
except SpawnFailed as error:
    print(error.permanent, error)
"""


def test_who_may_not_act_for_others_is_told_so_once() -> None:
    with tempfile.TemporaryDirectory() as place:
        paths = lay_out(Path(place) / "srv")
        for directory in (Path(place), paths.prefix, paths.run):
            os.chown(directory, NOBODY, NOBODY)
        command = [sys.executable, "-c", AS_NOBODY, str(paths.prefix)]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("True cannot run as root: the agent is not permitted to act for others")


def test_secrets_are_dropped_alone_and_the_rest_tidied_with_them(paths: Paths) -> None:
    prepare(service(user="nobody", heartbeat=Heartbeat(), secrets=("token",)), paths)
    drop_secrets("api", paths)
    assert not paths.secret_copies("api").exists()
    assert paths.heartbeat("api").exists()
    tidy("api", paths)
    assert not [*paths.run.iterdir(), *paths.tmp.iterdir()]
    assert paths.data("api").is_dir()
    tidy("api", paths)
