"""The installed form on disk, and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.installation import tree
from tests.binary import built
from tests.installation.conftest import Make


def test_a_source_tree_is_not_installed_but_says_what_is() -> None:
    with pytest.raises(
        RuntimeFailure, match="this is the source tree, which cannot be installed; run the built agentctl"
    ):
        tree.own()


def test_a_tree_names_its_parts_and_knows_where_they_are(made: Make) -> None:
    found = made("0.1.0")
    assert (found.manifest.version, found.manifest.machine) == ("0.1.0", "x86_64")
    for part in found.manifest.files:
        assert found.source(part.path).exists()
    assert found.source("agentctl") == found.executable
    assert (found.share / "systemd/agent.service").is_file()
    tree.verify(found)


@pytest.mark.parametrize("part", ["agentctl", "lib/library.so", "lib/link.so", "lib/share/agent/systemd/agent.service"])
def test_a_part_that_is_missing_is_found(made: Make, part: str) -> None:
    found = made()
    found.source(part).unlink()
    with pytest.raises(RuntimeFailure) as raised:
        tree.verify(found)
    assert str(found.source(part)) in str(raised.value) and str(raised.value).endswith("; get agentctl anew")


def test_a_part_of_which_a_bit_differs_is_found(made: Make) -> None:
    found = made()
    data = bytearray(found.executable.read_bytes())
    data[-1] ^= 1
    found.executable.write_bytes(data)
    with pytest.raises(RuntimeFailure, match="agentctl: is damaged: it has other contents than when it was built"):
        tree.verify(found)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}", b'{"version": 1, "machine": "", "files": []}', b'{"version":"\xff"}']
)
def test_a_manifest_that_is_none_is_a_failure_in_a_line(made: Make, data: bytes) -> None:
    found = made()
    found.source(tree.MANIFEST).write_bytes(data)
    with pytest.raises(RuntimeFailure, match=r"manifest\.json: is damaged: ") as raised:
        tree.laid(found.executable.parent)
    assert "\n" not in str(raised.value)


def test_a_directory_that_holds_none_is_a_failure_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match=r"manifest\.json: cannot be read: No such file or directory"):
        tree.laid(tmp_path)


def test_a_digest_begins_where_the_descriptor_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"ab")
    with (tmp_path / "file").open("rb") as file:
        assert tree.digest(file.fileno()) == tree.digest(tmp_path / "file")
        assert tree.digest(file.fileno()) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_what_was_built_is_such_a_tree() -> None:
    found = tree.laid(built().tree)
    assert found.manifest.version == built().version
    tree.verify(found)
    listed = {part.path for part in found.manifest.files} | {tree.MANIFEST}
    there = {str(path.relative_to(built().tree)) for path in built().tree.rglob("*") if not path.is_dir()}
    assert listed == there
    assert json.loads((found.share / "manifest.json").read_text())["glibc"]
