"""What an installation refuses, in one line and before anything is touched; and a disk that fills up half-way."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import EXIT_CONFIGURATION, EXIT_RUNTIME, RuntimeFailure, StorageFailure, UsageError
from agent.installation.install import Refused, install, lay, uninstall
from agent.installation.lock import DOING, only_one
from agent.installation.steps import Step, Write
from tests.installation.conftest import Make
from tests.installation.image import as_nobody, mounted, payload, snapshot, system

AARCH64 = 183


@pytest.mark.parametrize(
    "prefix",
    ["srv", "./srv", "", "/", "//", "/usr", "/var/", "/srv/my agent", "/srv/100%", "/srv\n", "/a/../b", "/run/x"],
)
def test_a_prefix_that_cannot_be_is_refused_in_a_line(made: Make, image: Path, prefix: str) -> None:
    before, tree = snapshot(image), made()
    works: list[Callable[[], object]] = [lambda: install(tree, prefix, image), lambda: uninstall(prefix, image)]
    for work in works:
        with pytest.raises(UsageError) as raised:
            work()
        assert raised.value.exit_code == EXIT_CONFIGURATION
        assert str(raised.value).startswith(f"--prefix {prefix!r}: ") and "\n" not in str(raised.value)
    assert snapshot(image) == before


def test_a_root_that_is_no_directory_is_refused(made: Make, image: Path) -> None:
    with pytest.raises(UsageError, match="is no directory"):
        install(made(), "/srv", image / "etc/passwd")
    with pytest.raises(UsageError, match="is no directory"):
        uninstall("/srv", image / "nowhere")


FOREIGN = [
    "srv/lib/agent/current",
    "srv/lib/agent/0.1.0",
    "srv/bin/agentctl",
    "srv/share/man/man1/agentctl.1",
    "etc/systemd/system/agent.service",
    "etc/systemd/system/agent.socket",
    "etc/sysusers.d/agent.conf",
    "etc/tmpfiles.d/agent.conf",
]


@pytest.mark.parametrize("place", [*FOREIGN, "srv/lib", "srv/bin", "srv/share", "srv/run", "srv/spool/agent"])
@pytest.mark.parametrize("kind", ["file", "directory", "link", "pipe"])
def test_what_is_there_and_not_ours_is_never_overwritten(made: Make, image: Path, place: str, kind: str) -> None:
    path = image / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("theirs")
    elif kind == "directory":
        path.mkdir()
        (path / "theirs").touch()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        os.mkfifo(path)
    before, tree = snapshot(image), made()
    given = place in ("srv/run", "srv/spool/agent")
    if kind == "directory" and place not in FOREIGN and not given:
        install(tree, "/srv", image)
        assert (path / "theirs").exists()
        return
    with pytest.raises(Refused) as raised:
        install(tree, "/srv", image)
    assert raised.value.exit_code == EXIT_RUNTIME
    named = "srv/spool" if kind == "directory" and given and "spool" in place else place
    assert any(line.startswith(f"/{named} ") and "move it away" in line for line in raised.value.objections)
    assert snapshot(image) == before


def test_all_that_stands_in_the_way_is_named_at_once(made: Make, image: Path) -> None:
    for place in FOREIGN[2:5]:
        (image / place).parent.mkdir(parents=True, exist_ok=True)
        (image / place).write_text("theirs")
    with pytest.raises(Refused) as raised:
        install(made(), "/srv", image)
    assert [line.split()[0] for line in raised.value.objections] == [
        "/srv/share/man/man1/agentctl.1",
        "/etc/systemd/system/agent.service",
        "/srv/bin/agentctl",
    ]


def test_the_same_that_is_there_already_is_no_objection(made: Make, image: Path) -> None:
    tree = made()
    install(tree, "/srv", image)
    (image / "srv/lib/agent/install.json").unlink()
    with pytest.raises(Refused) as raised:
        install(tree, "/srv", image)
    assert raised.value.objections == ["/srv/lib/agent/0.1.0 is there and was not laid by agentctl: move it away"]


def test_a_command_of_that_name_for_everybody_stays(made: Make, image: Path) -> None:
    (image / "usr/local/bin/agentctl").write_text("theirs")
    install(made(), "/srv", image)
    uninstall("/srv", image, purge=True)
    assert (image / "usr/local/bin/agentctl").read_text() == "theirs"


def test_the_units_of_another_prefix_are_not_taken(made: Make, image: Path) -> None:
    tree = made()
    install(tree, "/opt/agent", image)
    before = snapshot(image)
    with pytest.raises(Refused) as raised:
        install(tree, "/srv", image)
    assert raised.value.objections == [
        "an agent is installed below /opt/agent, and there is one to a host: take that one back first: "
        "agentctl --prefix /opt/agent uninstall"
    ]
    assert snapshot(image) == before


def test_the_units_of_a_package_are_not_hidden(made: Make, image: Path) -> None:
    (image / "usr/lib/systemd/system/agent.service").write_text("[Service]\n")
    with pytest.raises(
        Refused, match=r"/usr/lib/systemd/system/agent\.service is there: the package agent is installed"
    ):
        install(made(), "/srv", image)


def test_a_program_for_another_machine_is_refused(made: Make, image: Path) -> None:
    before = snapshot(image)
    with pytest.raises(RuntimeFailure, match=r"this agentctl is for aarch64, and the system below .* is x86_64: get"):
        install(made(machine="aarch64"), "/srv", image)
    assert snapshot(image) == before


def test_a_system_for_another_machine_is_refused(made: Make, image: Path) -> None:
    with (image / "usr/bin/env").open("r+b") as program:
        program.seek(18)
        program.write(AARCH64.to_bytes(2, "little"))
    before = snapshot(image)
    with pytest.raises(RuntimeFailure, match=r"this agentctl is for x86_64, and the system below .* is aarch64"):
        install(made(), "/srv", image)
    assert snapshot(image) == before


def test_a_payload_that_is_not_whole_is_refused(made: Make, image: Path) -> None:
    before, tree = snapshot(image), made()
    (tree.contents / "library.so").write_bytes(b"damaged")
    with pytest.raises(RuntimeFailure, match=r"library\.so: is damaged: .*; get agentctl anew"):
        install(tree, "/srv", image)
    assert snapshot(image) == before


def test_a_missing_tool_is_named_before_anything_is_touched(
    made: Make, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(image)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("agent.installation.foreign.DEFAULT_PATH", str(tmp_path))
    with pytest.raises(RuntimeFailure) as raised:
        install(made(), "/srv", image)
    assert str(raised.value) == (
        "systemd-sysusers and systemd-tmpfiles cannot be found; on Debian: apt install systemd"
    )
    assert snapshot(image) == before


def test_whoever_is_not_root_is_told_so(open_place: Path) -> None:
    (open_place / "image").mkdir()
    tree = payload(open_place / "payload", "0.1.0")
    said = as_nobody(lambda: install(tree, "/srv", open_place / "image"))
    assert said == "2 installing makes a user and units: run it as root, or see with --dry-run what it would do"
    assert as_nobody(lambda: install(tree, "/srv", open_place / "image", dry_run=True)) == ""
    assert not list((open_place / "image").iterdir())


def test_units_and_users_are_taken_back_by_root_only(open_place: Path) -> None:
    image = open_place / "image"
    install(payload(open_place / "payload", "0.1.0"), "/srv", system(image))
    before = snapshot(image)
    assert as_nobody(lambda: uninstall("/srv", image)).startswith("2 units and accounts are taken back: run it as root")
    assert snapshot(image) == before


def test_whoever_may_not_write_below_the_prefix_is_told_so(open_place: Path) -> None:
    tree = payload(open_place / "payload", "0.1.0")
    said = as_nobody(lambda: lay(tree, str(open_place / "prefix")))
    assert said == f"2 {open_place}: this user may not write there; run it as root, or change --prefix"


def test_root_does_not_execute_what_somebody_else_laid(open_place: Path) -> None:
    tree = payload(open_place / "payload", "0.1.0")
    theirs = open_place / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    assert as_nobody(lambda: lay(tree, str(theirs))) == ""
    with pytest.raises(RuntimeFailure, match=r"'theirs' on the way belongs to user nobody \(65534\), who"):
        lay(tree, str(theirs))


@pytest.mark.parametrize("place", ["srv/lib", "srv/lib/agent", "etc/systemd", "srv/share"])
def test_a_link_that_somebody_else_planted_is_not_followed(made: Make, image: Path, place: str) -> None:
    (image / "opt/trap").mkdir()
    if (image / place).exists():
        (image / place / "system").rmdir()
        (image / place).rmdir()
    (image / place).parent.mkdir(parents=True, exist_ok=True)
    (image / place).symlink_to("/opt/trap")
    os.chown(image / place, 65534, 65534, follow_symlinks=False)
    before = snapshot(image)
    with pytest.raises(RuntimeFailure, match=r"belongs to user nobody \(65534\), who could exchange what is put there"):
        install(made(), "/srv", image)
    assert snapshot(image) == before


def test_a_link_of_the_image_leads_where_it_leads_there(made: Make, image: Path) -> None:
    (image / "srv").rmdir()
    (image / "srv").symlink_to("/data/agent")
    (image / "data/agent").mkdir(parents=True)
    before = snapshot(image)
    install(made(), "/srv", image)
    assert (image / "data/agent/lib/agent/0.1.0/agentctl").is_file()
    uninstall("/srv", image, purge=True)
    assert snapshot(image) == before


def test_a_record_that_others_could_have_written_is_not_believed(made: Make, image: Path) -> None:
    install(made(), "/srv", image)
    record = image / "srv/lib/agent/install.json"
    record.write_text(record.read_text().replace("/etc/sysusers.d/agent.conf", "/etc/passwd"))
    with pytest.raises(RuntimeFailure, match="names '/etc/passwd', where agentctl lays nothing"):
        uninstall("/srv", image)
    record.write_text("{}")
    with pytest.raises(RuntimeFailure, match="is no record that this agentctl can read"):
        install(made(), "/srv", image)
    record.chmod(0o666)
    with pytest.raises(RuntimeFailure, match="others than root could have written it"):
        uninstall("/srv", image)


def test_two_at_once_are_one_after_the_other(made: Make, image: Path) -> None:
    tree = made()
    before = snapshot(image)
    with only_one(image, "/srv"), pytest.raises(RuntimeFailure) as raised:
        install(tree, "/srv", image)
    assert str(raised.value) == f"process {os.getpid()} is just {DOING}: wait for it, then try again"
    assert snapshot(image) == before


def test_a_prefix_on_a_disk_that_is_read_only_is_refused(made: Make, image: Path) -> None:
    with mounted(image / "srv", "ro"):
        before = snapshot(image)
        with pytest.raises(StorageFailure, match="/srv: its file system is mounted read-only: remount it, or change"):
            install(made(), "/srv", image)
        assert snapshot(image) == before


def test_a_disk_without_room_is_refused(made: Make, image: Path) -> None:
    with mounted(image / "srv", "size=8m"):
        before = snapshot(image)
        with pytest.raises(
            StorageFailure, match=r"/srv: 1\d\.\d MiB are needed there, and 8\.0 MiB are free: make room"
        ):
            install(made(extra=8 << 20), "/srv", image)
        assert snapshot(image) == before


def test_a_full_disk_does_not_keep_anything_from_being_taken_back(made: Make, image: Path) -> None:
    with mounted(image / "srv", "size=8m"):
        before = set(snapshot(image))
        install(made(), "/srv", image)
        with pytest.raises(OSError, match="No space left"), (image / "srv/spool/agent/fill").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))
        uninstall("/srv", image)
        assert (image / "srv/spool/agent/fill").exists() and not (image / "srv/bin").exists()
        uninstall("/srv", image, purge=True)
        assert set(snapshot(image)) == before


@pytest.mark.parametrize("place", ["srv", "etc"])
def test_what_lies_on_a_read_only_disk_is_not_taken_back_by_half(made: Make, image: Path, place: str) -> None:
    install(made(), "/srv", image)
    before, told = snapshot(image), list[Step]()
    subprocess.run(["mount", "--bind", image / place, image / place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", image / place], check=True)
        with pytest.raises(StorageFailure, match=f"/{place}.*: its file system is mounted read-only: remount it, then"):
            uninstall("/srv", image, tell=told.append)
        assert uninstall("/srv", image, dry_run=True).steps
    finally:
        subprocess.run(["umount", "--lazy", image / place], check=True)
    assert (snapshot(image), told) == (before, [])


def test_a_disk_without_inodes_is_refused(made: Make, image: Path) -> None:
    with mounted(image / "srv", "size=100m,nr_inodes=10"):
        with pytest.raises(StorageFailure, match=r"/srv: \d+ files are to be laid, and \d inodes are free"):
            install(made(), "/srv", image)
        assert not list((image / "srv").iterdir())


def test_a_prefix_from_which_nothing_can_be_executed_is_refused(made: Make, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "noexec"):
        with pytest.raises(StorageFailure, match="no program can be executed there, it is mounted noexec"):
            lay(made(), str(tmp_path / "disk/prefix"))
        assert not list((tmp_path / "disk").iterdir())


@pytest.mark.parametrize("at", [0, 3, 8])
@pytest.mark.parametrize("earlier", [True, False], ids=["upgrade", "first"])
def test_a_disk_that_fills_up_half_way_costs_nothing_that_was_there(
    made: Make, image: Path, at: int, earlier: bool
) -> None:
    with mounted(image / "srv", "size=24m"):
        if earlier:
            install(made("0.1.0"), "/srv", image)
        before, tree = snapshot(image), made("0.1.1", extra=4 << 20)
        written = 0

        def fill(step: Step) -> None:
            nonlocal written
            written += isinstance(step, Write)
            if written == at + 1 and not (image / "srv/filler").exists():
                with (image / "srv/filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
                    while True:
                        filler.write(bytes(65536))

        with pytest.raises(StorageFailure, match=r"No space left on device; everything is as it was before") as raised:
            install(tree, "/srv", image, tell=fill)
        assert "\n" not in str(raised.value)
        (image / "srv/filler").unlink()
        assert snapshot(image) == before
        install(tree, "/srv", image)
        assert (image / "srv/lib/agent/current").readlink() == Path("0.1.1")


def test_data_on_a_disk_of_its_own_is_not_purged_before_that_is_unmounted(made: Make, image: Path) -> None:
    install(made(), "/srv", image)
    with mounted(image / "srv/spool", "size=1m"):
        (image / "srv/spool/data").touch()
        before = snapshot(image)
        with pytest.raises(RuntimeFailure, match="/srv/spool: is a mount point, and cannot be removed"):
            uninstall("/srv", image, purge=True)
        assert snapshot(image) == before
        uninstall("/srv", image)
        assert (image / "srv/spool/data").exists()


def test_a_message_never_has_two_lines(made: Make, image: Path) -> None:
    with pytest.raises(UsageError) as raised:
        install(made(), "/srv/a\nb\x1b[2J", image)
    assert re.fullmatch(r"[ -~]+", str(raised.value))
