"""What the one file carries packed is unpacked once, whole, by whoever is first, and by all at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import RuntimeFailure
from agent.linux import packed
from agent.linux.packed import PACK, pack, unpack

ROOT = Path(__file__).resolve().parents[2]
FILES = {"numpers/__init__.py": b"answer = 42\n", "numpers/inner/data": os.urandom(1 << 20), "lib.so": b""}


def there(directory: Path) -> dict[str, bytes]:
    """What was unpacked."""
    known = {PACK, "unpacked"}
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in known
    }


@given(st.dictionaries(st.text("abc/", min_size=1).map(lambda name: f"x{name.replace('/', '_')}"), st.binary()))
def test_what_is_packed_comes_out(tmp_path_factory: pytest.TempPathFactory, files: Mapping[str, bytes]) -> None:
    directory = tmp_path_factory.mktemp("packed")
    (directory / PACK).write_bytes(pack(files))
    unpack(directory)
    assert there(directory) == files


def test_it_is_unpacked_once(tmp_path: Path) -> None:
    (tmp_path / PACK).write_bytes(pack(FILES))
    unpack(tmp_path)
    (tmp_path / "lib.so").write_bytes(b"changed")
    unpack(tmp_path)
    assert there(tmp_path)["lib.so"] == b"changed"


def test_many_processes_may_unpack_at_once(tmp_path: Path) -> None:
    (tmp_path / PACK).write_bytes(pack(FILES))
    program = "import sys; from pathlib import Path; from agent.linux.packed import unpack; unpack(Path(sys.argv[1]))"

    def one(_: int) -> str:
        argv = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=30).stderr

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(one, range(6))) == {""}
    assert there(tmp_path) == FILES


def test_it_is_unpacked_when_the_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PACK).write_bytes(pack(FILES))
    monkeypatch.setattr(packed, "one_file", lambda: True)
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.syspath_prepend(tmp_path)
    before = len(sys.meta_path)
    packed.unpack_for("numpers")
    import decimal  # noqa: F401  # another module

    assert there(tmp_path) == {}
    assert __import__("numpers").answer == 42
    assert there(tmp_path).keys() >= FILES.keys()
    assert len(sys.meta_path) == before
    del sys.modules["numpers"]


def test_without_room_it_says_where_and_what_helps(tmp_path: Path) -> None:
    (tmp_path / PACK).write_bytes(pack(FILES))
    (tmp_path / "numpers").write_bytes(b"")
    with pytest.raises(
        RuntimeFailure, match=f"{tmp_path}: the rest of this program cannot be unpacked there: .*TMPDIR"
    ):
        unpack(tmp_path)
    assert not (tmp_path / "unpacked").exists()
