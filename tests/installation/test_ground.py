"""Machines and disks, asked before anything is laid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure, StorageFailure
from agent.installation.entry import Directory, File
from agent.installation.ground import check_disks, check_machine, machine_of
from agent.installation.steps import Make, Write
from tests.installation.image import mounted

HERE = Path("/")


@pytest.mark.parametrize(
    ("number", "big", "name"),
    [(62, False, "x86_64"), (183, False, "aarch64"), (22, True, "ELF machine 22"), (3, False, "i686")],
)
def test_a_system_is_for_the_machine_that_its_programs_are_for(
    tmp_path: Path, number: int, big: bool, name: str
) -> None:
    path = tmp_path / "usr/lib/systemd/systemd"
    path.parent.mkdir(parents=True)
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x02" if big else b"\x7fELF\x02\x01"
    header[18:20] = number.to_bytes(2, "big" if big else "little")
    path.write_bytes(header)
    assert machine_of(tmp_path) == name
    if name != "x86_64":
        with pytest.raises(RuntimeFailure, match=f"for x86_64, and the system below {tmp_path} is {name}: get the"):
            check_machine("x86_64", tmp_path)


def test_a_program_behind_a_link_out_of_the_image_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/bin").symlink_to("/proc/self/root/usr/bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ls").write_text("#!/bin/sh\n")
    assert machine_of(tmp_path) is None
    check_machine("x86_64", tmp_path)


def test_this_machine_runs_what_is_for_it() -> None:
    check_machine(os.uname().machine, HERE)
    with pytest.raises(RuntimeFailure, match="this agentctl is for vax, and this machine is"):
        check_machine("vax", HERE)


def writes(place: Path, size: int) -> tuple[list[Make | Write], dict[str, bytes]]:
    path = f"{place}/lib/agent/0.1.0/file"
    return [Make(Directory(f"{place}/lib")), Write(File(path, "0644", "0" * 64), replace=False)], {path: bytes(size)}


def test_where_there_is_room_nobody_objects(tmp_path: Path) -> None:
    steps, sources = writes(tmp_path / "prefix", 100)
    check_disks(steps, f"{tmp_path}/prefix", HERE, sources, writing=True)


def test_all_that_goes_to_one_disk_is_counted_together(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=10m"):
        steps, sources = writes(tmp_path / "disk", 5 << 20)
        check_disks(steps, f"{tmp_path}/disk", HERE, sources, writing=True)
        more = f"{tmp_path}/disk/share/file"
        with pytest.raises(StorageFailure, match=r"disk: 11\.0 MiB are needed there, and 10\.0 MiB are free"):
            check_disks(
                [*steps, Write(File(more, "0644", "0" * 64), replace=False)],
                f"{tmp_path}/disk",
                HERE,
                {**sources, more: bytes(2 << 20)},
                writing=True,
            )


def test_a_program_needs_a_disk_that_executes_and_an_image_does_not(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "noexec"):
        steps, sources = writes(tmp_path / "disk", 1)
        with pytest.raises(StorageFailure, match="no program can be executed there, it is mounted noexec"):
            check_disks(steps, f"{tmp_path}/disk", HERE, sources, writing=True)
        steps, sources = writes(Path("/srv"), 1)
        check_disks(steps, "/srv", tmp_path / "disk", sources, writing=True)


def test_another_prefix_is_no_advice_for_what_does_not_go_below_it(tmp_path: Path) -> None:
    unit = f"{tmp_path}/disk/unit"
    steps = [Write(File(unit, "0644", "0" * 64), replace=False)]
    for options in ("ro", "size=4m"):
        with mounted(tmp_path / "disk", options), pytest.raises(StorageFailure, match=r", then try again$"):
            check_disks(steps, "/srv", HERE, {unit: bytes(1)}, writing=True)


def test_a_disk_that_is_read_only_is_said_to_be(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro"), pytest.raises(StorageFailure, match="mounted read-only"):
        check_disks([Make(Directory("/srv"))], "/srv", tmp_path / "disk", {}, writing=True)
