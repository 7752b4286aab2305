"""Paths below another root: resolved there, step by step, and never through what others could exchange."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.linux.rooted import canonical, directory, names, nearest, remove_tree, stands

NOBODY = 65534


def reached(root: Path, path: str) -> Path:
    """Where a path leads."""
    with directory(root, path) as descriptor:
        return Path(f"/proc/self/fd/{descriptor}").resolve()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/usr/lib/systemd").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize(
    "path", ["/usr/lib/systemd", "usr/lib/systemd/", "/usr/./lib//systemd", "/usr/lib/x/../systemd"]
)
def test_a_path_is_walked_from_the_root(root: Path, path: str) -> None:
    (root / "usr/lib/x").mkdir()
    assert reached(root, path) == root / "usr/lib/systemd"


def test_what_stands_somewhere_may_be_a_link_to_nowhere(root: Path) -> None:
    (root / "usr/dangling").symlink_to("/nowhere")
    (root / "usr/out").symlink_to(root.parent / "outside")
    (root.parent / "outside/file").touch()
    (root / "file").touch()
    assert [stands(root, path) for path in ("/usr", "/usr/dangling", "/usr/out", "/file")] == [True] * 4
    assert [stands(root, path) for path in ("/opt", "/no/where", "/usr/out/file", "/file/x")] == [False] * 4
    os.chown(root / "usr", NOBODY, NOBODY)
    with pytest.raises(RuntimeFailure, match="who could exchange"):
        stands(root, "/usr/lib")


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../../usr/lib", "/../../../usr/lib", "/other"])
def test_links_are_resolved_within_the_root(root: Path, target: str) -> None:
    (root / "other").symlink_to("/usr/lib/")
    (root / "lib").symlink_to(target)
    assert reached(root, "/lib/systemd") == root / "usr/lib/systemd"


def test_nothing_leads_out_of_the_root(root: Path) -> None:
    (root / "out").symlink_to("../outside")
    assert reached(root, "/../../..") == root
    with pytest.raises(FileNotFoundError):
        reached(root, "/out")


def test_what_is_missing_or_no_directory_is_said_to_be(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(FileNotFoundError):
        reached(root, "/usr/nothing/below")
    for path in ("/file", "/file/below"):
        with pytest.raises(NotADirectoryError):
            reached(root, path)


def test_links_in_a_circle_are_refused(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    with pytest.raises(RuntimeFailure, match="/one: too many symbolic links"):
        reached(root, "/one")


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_what_belongs_to_somebody_else_is_not_passed_but_for_looking(root: Path, kind: str) -> None:
    if kind == "link":
        (root / "theirs").symlink_to("usr")
    else:
        (root / "theirs/lib").mkdir(parents=True)
    os.chown(root / "theirs", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(RuntimeFailure, match=r"/theirs/lib: 'theirs' on the way belongs to user nobody \(65534\)"):
        reached(root, "/theirs/lib")
    with directory(root, "/theirs/lib", trust=True) as descriptor:
        assert os.fstat(descriptor).st_ino


def test_a_directory_that_everybody_may_write_to_is_passed_only_if_sticky(root: Path) -> None:
    (root / "usr").chmod(0o777)
    with pytest.raises(RuntimeFailure, match="everybody may write to 'usr' on the way"):
        reached(root, "/usr/lib")
    (root / "usr").chmod(0o1777)
    assert reached(root, "/usr/lib") == root / "usr/lib"


def test_the_nearest_directory_that_exists_is_found(root: Path) -> None:
    for path, expected in (("/usr/lib/a/b", "/usr/lib"), ("/usr/lib", "/usr/lib"), ("/a", "/"), ("/", "/")):
        with nearest(root, path) as (descriptor, found):
            assert found == expected
            assert os.fstat(descriptor).st_ino == (root / expected.lstrip("/")).stat().st_ino


def test_no_descriptor_is_left_open(root: Path) -> None:
    (root / "one").symlink_to("two")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/usr/lib/systemd", "/one", "/usr/../../.."):
        try:
            reached(root, path)
        except OSError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_a_tree_is_removed_with_all_that_is_in_it_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    top = tmp_path / "top"
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/c/file").touch()
    (top / "a/link").symlink_to("../../outside")
    os.mkfifo(top / "pipe")
    (top / "locked").mkdir(mode=0)
    above = opened(tmp_path)
    remove_tree(above, "top")
    remove_tree(above, "top")
    assert names(above) == ["outside"]
    os.close(above)
    assert (tmp_path / "outside/kept").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_tree_is_removed_as_well(tmp_path: Path, kind: str) -> None:
    (tmp_path / "kept").mkdir()
    if kind == "link":
        (tmp_path / "it").symlink_to("kept")
    else:
        (tmp_path / "it").touch()
    above = opened(tmp_path)
    remove_tree(above, "it")
    assert names(above) == ["kept"]
    os.close(above)


def test_no_depth_is_too_much(tmp_path: Path) -> None:
    """A service can make directories deeper than a path can be long, and than there are descriptors or stack."""
    (tmp_path / "top").mkdir()
    here = opened(tmp_path / "top")
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    above = opened(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        remove_tree(above, "top")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(above)
    assert not list(tmp_path.iterdir())


def test_what_is_mounted_inside_is_not_emptied(tmp_path: Path) -> None:
    disk = tmp_path / "top/disk"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "test", disk], check=True)
    (disk / "kept").touch()
    above = opened(tmp_path)
    try:
        with pytest.raises(OSError, match="disk is a mount point, and not removed: unmount it first"):
            remove_tree(above, "top")
        assert (disk / "kept").exists()
    finally:
        os.close(above)
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/usr/lib/systemd", "/usr/lib/systemd"),
        ("/a/x/../y/", "/usr/lib/y"),
        ("/b/./z", "/usr/lib/systemd/z"),
        ("/c", "/outside"),
        ("/not/there", "/not/there"),
        ("/", "/"),
    ],
)
def test_the_real_name_of_a_path_is_what_the_root_makes_of_it(root: Path, path: str, real: str) -> None:
    (root / "a").symlink_to("/usr/lib")
    (root / "b").symlink_to("a/systemd")
    (root / "c").symlink_to("../../outside")
    assert canonical(root, path) == real
    assert canonical(Path("/"), str(root / "a")) == os.path.realpath(root / "a")


def test_links_that_lead_round_have_no_real_name(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(RuntimeFailure, match="too many symbolic links"):
        canonical(root, "/a")
