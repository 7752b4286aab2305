"""What is in the built program, and what is not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PyInstaller.archive.readers import CArchiveReader

import bundle
import elf
from agent.linux import packed
from licences import COMPONENTS
from tests.binary import ROOT, Built

pytestmark = pytest.mark.timeout(300)  # the first one may build

ONE_FILE_LIMIT = 29 * 1024 * 1024
TREE_LIMIT = 68 * 1024 * 1024
"""Bytes. The contract says 35 MB for the one file; what grows beyond these is worth a look."""

LIBRARIES = ("lib", "lib/numpy.libs")
"""Where in the installed form shared libraries are."""

HOST = re.compile(r"(libc|libm|libdl|libpthread|librt|libutil|ld-linux-[a-z0-9-]+)\.so\.[0-9]")
"""What every Linux host has: the C library, in its parts."""


@pytest.fixture(scope="module")
def manifest(program: Built) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((program.tree / "lib" / bundle.MANIFEST).read_text())
    return found


def files(program: Built) -> Iterator[Path]:
    return (path for path in sorted(program.tree.rglob("*")) if not path.is_dir())


def programs(program: Built) -> dict[Path, elf.Elf]:
    """Every ELF file in the installed form."""
    return {path: found for path in files(program) if (found := elf.read(path))}


def test_the_manifest_is_of_this_version_and_machine(program: Built, manifest: dict[str, Any]) -> None:
    assert manifest["version"] == program.version
    assert {manifest["machine"]} == {found.machine for found in programs(program).values()} == {os.uname().machine}


def test_the_manifest_has_every_file_and_no_other(program: Built, manifest: dict[str, Any]) -> None:
    listed = {entry["path"]: entry for entry in manifest["files"]}
    assert len(listed) == len(manifest["files"])
    there = {str(path.relative_to(program.tree)): path for path in files(program)}
    assert set(listed) == set(there) - {f"lib/{bundle.MANIFEST}"}
    for name, entry in listed.items():
        assert entry["sha256"] == hashlib.sha256(there[name].read_bytes()).hexdigest()
        assert entry["mode"] == f"{there[name].stat().st_mode & 0o7777:04o}"
        assert entry["mode"] == ("0755" if name == "agentctl" else "0644")
        assert not there[name].is_symlink()


def test_no_library_is_searched_for_where_this_machine_has_its_own(program: Built) -> None:
    """But beside itself: numpy and what it brings find each other wherever the program lies."""
    own = program.tree / "lib"
    for path in programs(program):
        shown = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=True).stdout
        for place in ":".join(re.findall(r"^  (?:RUN|R)PATH +(\S+)$", shown, re.MULTILINE)).split(":"):
            found = Path(os.path.normpath(place.replace("$ORIGIN", str(path.parent))))
            assert not place or found.is_relative_to(own), path


def test_only_the_program_stands_beside_the_libraries(program: Built) -> None:
    assert sorted(path.name for path in program.tree.iterdir()) == ["agentctl", "lib"]


def test_the_one_file_carries_the_whole_installed_form(
    program: Built, manifest: dict[str, Any], tmp_path: Path
) -> None:
    archive = CArchiveReader(str(program.onefile))
    paths = [entry["path"] for entry in manifest["files"]] + [f"lib/{bundle.MANIFEST}"]
    carried = {name for name, (*_, kind) in archive.toc.items() if kind in "bx"} - {packed.PACK}
    (tmp_path / packed.PACK).write_bytes(archive.extract(packed.PACK) or b"")
    packed.unpack(tmp_path)
    for path in paths:
        name = path.removeprefix("lib/")
        later = name.startswith(bundle.LATER)
        assert (tmp_path / name).exists() == later != (name in carried), name
        found = (tmp_path / name).read_bytes() if later else archive.extract(name)
        assert found == (program.tree / path).read_bytes()
    assert len(carried) < len(paths) - 4


def test_nothing_asks_for_what_is_unpacked_later_but_what_is_itself(program: Built) -> None:
    own = program.tree / "lib"
    for path, found in programs(program).items():
        if path != program.program and not str(path.relative_to(own)).startswith(bundle.LATER):
            assert [name for name in found.needed if name.startswith(("libstdc++", "libgcc_s"))] == [], path


def test_it_is_small(program: Built) -> None:
    assert program.onefile.stat().st_size < ONE_FILE_LIMIT
    assert sum(path.stat().st_size for path in files(program)) < TREE_LIMIT


def test_it_is_stripped(program: Built) -> None:
    stripped = {path: found.stripped for path, found in programs(program).items()}
    # What wheels bring cannot be: see bundle.binaries.
    assert [path for path, done in stripped.items() if not done and path.parent.name != "numpy.libs"] == []
    one_file = elf.read(program.onefile)
    assert one_file is not None and one_file.stripped


def test_the_c_library_that_it_needs_is_stated(program: Built, manifest: dict[str, Any]) -> None:
    needed = max(elf.glibc(found) for found in programs(program).values())
    assert manifest["glibc"] == ".".join(map(str, needed))
    assert needed <= bundle.GLIBC
    assert f"glibc {'.'.join(map(str, bundle.GLIBC))}" in (ROOT / "README.md").read_text()


def test_every_library_that_is_needed_is_bundled_or_on_every_host(program: Built) -> None:
    bundled = {path.name for place in LIBRARIES for path in (program.tree / place).glob("*.so*")}
    for path, found in programs(program).items():
        assert [name for name in found.needed if name not in bundled and not HOST.fullmatch(name)] == [], path


def test_before_there_is_a_bundle_only_zlib_is_needed_as_well(program: Built) -> None:
    """The bootloader has to find and unpack the bundle with what the host has."""
    for path in (program.program, program.onefile):
        found = elf.read(path)
        assert found is not None
        assert [name for name in found.needed if not HOST.fullmatch(name)] == ["libz.so.1"]


def test_no_library_is_bundled_that_nothing_needs(program: Built) -> None:
    found = programs(program)
    needed = {name for one in found.values() for name in one.needed}
    loaded = ("libpcap.so.", "libpython")  # by ctypes, and by the bootloader
    libraries = [path.name for path in found if str(path.parent.relative_to(program.tree)) in LIBRARIES]
    idle = [name for name in libraries if name not in needed]
    assert [name for name in idle if not name.startswith(loaded)] == []


def test_libpcap_brings_no_message_bus(program: Built) -> None:
    names = " ".join(path.name for path in files(program))
    assert not re.search("libdbus|libsystemd|libgcrypt|libcrypto|libssl|libreadline|libtk", names)


@pytest.mark.parametrize("module", bundle.EXCLUDED)
def test_what_is_left_out_is_not_there(module: str, modules: set[str]) -> None:
    assert [name for name in modules if name == module or name.startswith(f"{module}.")] == []


def test_what_is_there_can_do_without_what_is_left_out(modules: set[str]) -> None:
    """Everything that is bundled is imported, in an interpreter that has only what is bundled."""
    tops = tuple(f"{module}." for component in COMPONENTS for module in component.modules)
    wanted = sorted(name for name in modules if f"{name}.".startswith(tops) and not name.startswith(("pyi", "early")))
    script = (
        "import sys\n"
        f"excluded = {bundle.EXCLUDED!r}\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if any(f'{name}.'.startswith(f'{one}.') for one in excluded):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "for name in list(sys.modules):\n"
        "    if any(f'{name}.'.startswith(f'{one}.') for one in excluded):\n"
        "        del sys.modules[name]\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from importlib import import_module\n"
        f"for name in {wanted!r}:\n"
        "    import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_module_of_ours_is_there(modules: set[str]) -> None:
    ours = set()
    for path in (ROOT / "agent").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        ours.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert ours <= modules | {"agent.__main__"}


def test_of_scapys_layers_only_those_in_use_are_there(modules: set[str]) -> None:
    assert "scapy.libs.winpcapy" in modules
    below = ("scapy.layers.", "scapy.contrib.", "scapy.modules.", "scapy.tools.")
    assert {name for name in modules if name.startswith(below)} <= {
        *("scapy.layers.l2", "scapy.layers.inet", "scapy.layers.inet6", "scapy.layers.dns"),
        *("scapy.layers.dhcp", "scapy.layers.dhcp6", "scapy.contrib.lldp"),
    }


def test_of_numpy_what_computes_with_arrays_is_there(modules: set[str]) -> None:
    below = {name.split(".")[1] for name in modules if name.startswith("numpy.") and name.count(".") > 1}
    assert below == {"_core", "_typing", "_utils", "lib", "linalg", "ma", "matrixlib"}


def test_no_hook_of_others_runs_before_the_program(program: Built) -> None:
    toc = CArchiveReader(str(program.program)).toc
    assert [name for name, (*_, kind) in toc.items() if kind == "s"] == ["pyiboot01_bootstrap", "__main__"]
    assert next(name for name, (*_, kind) in toc.items() if kind == "m") == "early"


def test_the_installed_form_has_no_modules_to_unpack(program: Built) -> None:
    archive = CArchiveReader(str(program.program)).open_embedded_archive("PYZ.pyz")
    for name, (_, _, stored) in archive.toc.items():
        assert stored >= len(archive.extract(name, raw=True) or b""), name


def test_nothing_tells_where_it_was_built(program: Built) -> None:
    """Tracebacks and help name modules, not places on a machine that nobody knows."""
    place = str(ROOT).encode()
    assert [path for path in [program.onefile, *files(program)] if place in path.read_bytes()] == []
    archive = CArchiveReader(str(program.program)).open_embedded_archive("PYZ.pyz")
    assert [name for name in archive.toc if place in (archive.extract(name, raw=True) or b"")] == []


def test_the_units_go_with_it_as_they_lie_in_the_source(tmp_path: Path) -> None:
    (root := tmp_path / "root").mkdir()
    (root / "LICENSE").write_text("a licence")
    (made := tmp_path / "made").mkdir()
    bundle.gather(root, made, [], 0)
    assert sorted(path.name for path in made.iterdir()) == ["LICENSE", "completions", "licences", "man"]
    (root / "systemd" / "examples").mkdir(parents=True)
    (root / "systemd" / "agent.service").write_text("[Unit]\n")
    (root / "systemd" / "examples" / "more.conf").write_text("# more\n")
    (again := tmp_path / "again").mkdir()
    bundle.gather(root, again, [], 0)
    assert {name for name, _, _ in bundle.share(again)} >= {
        "share/agent/systemd/agent.service",
        "share/agent/systemd/examples/more.conf",
        "share/agent/LICENSE",
        "share/agent/man/agentctl.1",
    }


def here(name: str, kind: str) -> bundle.Entry:
    """A library of this machine, as PyInstaller would list it."""
    return (name, str(next(Path("/usr/lib").glob(f"*/{name}"))), kind)


def test_a_library_that_nothing_asks_for_stays_out() -> None:
    pcap, bus, lz4 = (here(name, "BINARY") for name in ("libpcap.so.0.8", "libdbus-1.so.3", "liblz4.so.1"))
    assert bundle.binaries([bus, pcap, lz4]) == [pcap]
    asking = here("libsystemd.so.0", "EXTENSION")
    assert bundle.binaries([bus, pcap, lz4, asking]) == [pcap, lz4, asking]
    bus_user = here("libdbus-1.so.3", "EXTENSION")
    assert bundle.binaries([bus_user, lz4, here("libsystemd.so.0", "BINARY")])[1:] == [
        lz4,
        here("libsystemd.so.0", "BINARY"),
    ]
