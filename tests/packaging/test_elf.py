"""ELF files are read as binutils read them, and one that was freed of a library loads without it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import elf

HERE = Path("/usr/lib") / f"{sys.implementation._multiarch}"
PCAP = HERE / "libpcap.so.0.8"
SYSTEMD = HERE / "libsystemd.so.0"
DBUS = "libdbus-1.so.3"


def objdump(path: Path) -> str:
    done = subprocess.run(["objdump", "-p", str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def needed(path: Path) -> list[str]:
    return re.findall(r"^  NEEDED +(\S+)$", objdump(path), re.MULTILINE)


def versions(path: Path) -> set[str]:
    return set(re.findall(r"^    0x[0-9a-f]{8} 0x[0-9a-f]{2} [0-9]{2} (\S+)$", objdump(path), re.MULTILINE))


@pytest.mark.parametrize("path", [PCAP, SYSTEMD, Path("/bin/sh"), Path(sys.executable)], ids=lambda path: path.name)
def test_what_a_file_needs_is_what_objdump_says(path: Path) -> None:
    found = elf.read(path)
    assert found is not None
    assert (list(found.needed), set(found.versions)) == (needed(path), versions(path))
    assert found.machine == subprocess.run(["uname", "-m"], capture_output=True, text=True).stdout.strip()


def test_where_a_file_has_libraries_looked_for_is_what_objdump_says() -> None:
    core = Path(str(distribution("numpy").locate_file("numpy/_core")))
    (module,) = core.glob("_multiarray_umath.*.so")
    found, without = elf.read(module), elf.read(PCAP)
    assert found is not None and without is not None
    assert found.searched == tuple(re.findall(r"^  R(?:UN)?PATH +(\S+)$", objdump(module), re.MULTILINE)) != ()
    assert without.searched == ()


def test_the_newest_version_is_newest_by_number() -> None:
    assert elf.glibc(
        elf.Elf("x86_64", (), ("GLIBC_2.9", "GLIBC_2.34", "GLIBC_2.3.4", "GLIBC_PRIVATE", "ZLIB_9"), True)
    ) == (
        2,
        34,
    )
    assert elf.glibc(elf.Elf("x86_64", (), ("LIBDBUS_1_3",), True)) == ()


def test_what_is_no_program_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    (tmp_path / "empty").touch()
    assert elf.read(tmp_path / "text") is elf.read(tmp_path / "empty") is None


def test_a_program_for_elsewhere_is_refused(tmp_path: Path) -> None:
    data = bytearray(PCAP.read_bytes())
    data[18] = 40  # EM_ARM
    (tmp_path / "foreign").write_bytes(data)
    with pytest.raises(ValueError, match="not for a machine that this program runs on"):
        elf.read(tmp_path / "foreign")


def test_a_file_with_symbols_is_not_stripped(tmp_path: Path) -> None:
    source = tmp_path / "a.s"
    source.write_text(".globl a\na:\n")
    subprocess.run(["as", "-o", str(tmp_path / "a.o"), str(source)], check=True)
    subprocess.run(["ld", "-shared", "-o", str(tmp_path / "a.so"), str(tmp_path / "a.o")], check=True)
    found = elf.read(tmp_path / "a.so")
    assert found is not None and not found.stripped
    subprocess.run(["strip", str(tmp_path / "a.so")], check=True)
    found = elf.read(tmp_path / "a.so")
    assert found is not None and found.stripped


def load(path: Path, *, at_once: bool = False) -> subprocess.CompletedProcess[str]:
    """Load a library where nothing else is, and say which it is."""
    script = (
        f"import ctypes\nlibrary = ctypes.CDLL({str(path)!r})\nlibrary.pcap_lib_version.restype = ctypes.c_char_p\n"
        "print(library.pcap_lib_version().decode())\n"
        "print([line.split()[-1] for line in open('/proc/self/maps') if 'libdbus' in line])"
    )
    environment = {"LD_BIND_NOW": "1"} if at_once else {}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("at_once", [False, True], ids=["when called", "at once"])
def test_libpcap_loads_without_the_library_that_it_was_freed_of(tmp_path: Path, at_once: bool) -> None:
    assert DBUS in needed(PCAP), "nothing is shown"
    free = tmp_path / "libpcap.so"
    free.write_bytes(elf.without(PCAP.read_bytes(), DBUS))
    assert needed(free) == [name for name in needed(PCAP) if name != DBUS]
    assert versions(free) == versions(PCAP) - {"LIBDBUS_1_3"}
    done = load(free, at_once=at_once)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"libpcap version \S+ .*\n\[\]\n", done.stdout)


def test_a_freed_library_can_be_stripped(tmp_path: Path) -> None:
    free = tmp_path / "libpcap.so"
    free.write_bytes(elf.without(PCAP.read_bytes(), DBUS))
    subprocess.run(["strip", str(free)], check=True)
    assert load(free).returncode == 0
    assert DBUS not in needed(free)


def versioned(path: Path) -> list[str]:
    """The libraries whose functions have versions."""
    return re.findall(r"^  required from (\S+):$", objdump(path), re.MULTILINE)


@pytest.mark.parametrize("library", versioned(SYSTEMD))
def test_whichever_library_goes_the_others_stay(tmp_path: Path, library: str) -> None:
    """The chain of versions is mended at its begin, in its middle and at its end."""
    free = tmp_path / "libsystemd.so"
    free.write_bytes(elf.without(SYSTEMD.read_bytes(), library))
    assert needed(free) == [name for name in needed(SYSTEMD) if name != library]
    found, before = elf.read(free), elf.read(SYSTEMD)
    assert found is not None and before is not None
    assert set(found.versions) == versions(free) <= set(before.versions)
    assert versioned(free) == [name for name in versioned(SYSTEMD) if name != library]
    dump = subprocess.run(["readelf", "-WdVs", str(free)], capture_output=True, text=True, check=True)
    assert dump.stderr == ""
    assert library not in dump.stdout


def test_a_library_that_is_not_needed_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match=r"libm\.so\.6 is not needed"):
        elf.without(PCAP.read_bytes(), "libm.so.6")


def test_a_library_whose_functions_nothing_marks_cannot_be_left_out() -> None:
    unmarked = next(name for name in needed(SYSTEMD) if name not in versioned(SYSTEMD))
    with pytest.raises(ValueError, match=f"which functions are those of {unmarked} cannot be told"):
        elf.without(SYSTEMD.read_bytes(), unmarked)


def test_a_library_without_a_search_path_is_searched_for_nowhere_else_and_loads(tmp_path: Path) -> None:
    library, part = tmp_path / "it.so", tmp_path / "it.o"
    subprocess.run(["as", "-o", part, "/dev/null"], check=True)
    for kind in ("--enable-new-dtags", "--disable-new-dtags"):
        subprocess.run(["ld", "-shared", "-rpath=/nowhere/lib", kind, "-o", library, part], check=True)
        assert re.search(r"^  R(UN)?PATH +/nowhere/lib$", objdump(library), re.MULTILINE)
        freed = elf.without_search_path(library.read_bytes())
        library.write_bytes(freed)
        assert not re.search("R(UN)?PATH", objdump(library))
        assert elf.without_search_path(freed) == freed
        subprocess.run([sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r})"], check=True)
