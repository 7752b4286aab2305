"""ELF files: what they need, whether they are stripped, and how one does without a library that it never calls.

Only what a bundle for Linux holds: 64 bits, little-endian, with section headers. Structures and constants are those of
elf.h and of the LSB's chapter on symbol versioning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MACHINES = {62: "x86_64", 183: "aarch64"}
"""e_machine, as uname(2) calls it."""

_IDENTIFICATION = b"\x7fELF\x02\x01"  # ELFCLASS64, ELFDATA2LSB

_SYMTAB, _DYNAMIC, _DYNSYM, _VERNEED, _VERSYM = 2, 6, 11, 0x6FFFFFFE, 0x6FFFFFFF  # sh_type
_DT_RPATH, _DT_RUNPATH = 15, 29
_DT_NULL, _DT_NEEDED, _DT_VERNEED, _DT_VERNEEDNUM = 0, 1, 0x6FFFFFFE, 0x6FFFFFFF  # d_tag
_SYMBOL_SIZE, _SYMBOL_INFO = 24, 4  # of Elf64_Sym, and where st_info is in it
_SECTION_PLACE, _SECTION_INFO = 16, 44  # where sh_addr, sh_offset, sh_size, and sh_info are in Elf64_Shdr
_NEED_NEXT = 12  # where vn_next is in Elf64_Verneed
_WEAK = 2  # STB_WEAK
_VERSION, _GLOBAL = 0x7FFF, 1  # the part of a versym that is the version; VER_NDX_GLOBAL: none

_HEADER = struct.Struct("<16x2HI3Q I6H")
_SECTION = struct.Struct("<2I4Q2I2Q")
_ENTRY = struct.Struct("<qQ")  # Elf64_Dyn
_NEED = struct.Struct("<2H3I")  # Elf64_Verneed: version, count, file, aux, next
_AUX = struct.Struct("<I2H2I")  # Elf64_Vernaux: hash, flags, other, name, next


class Elf(NamedTuple):
    """``machine`` as of uname(2), libraries ``needed``, ``versions`` of their symbols, whether it is ``stripped``.

    ``searched`` are the directories in which it has libraries looked for, before or after others.
    """

    machine: str
    needed: tuple[str, ...]
    versions: tuple[str, ...]
    stripped: bool
    searched: tuple[str, ...] = ()


class _Section(NamedTuple):
    place: int  # of its header in the file
    kind: int
    address: int
    offset: int
    size: int
    link: int
    info: int


class _Need(NamedTuple):
    """What is needed of one library: the number that each version has in the table of symbols, and its name."""

    place: int
    next: int
    library: str
    versions: dict[int, str]


def read(path: Path) -> Elf | None:
    """What an ELF file says of itself; ``None`` when ``path`` is none. Raises ``ValueError`` on a foreign one."""
    with path.open("rb") as file:
        if file.read(4) != _IDENTIFICATION[:4]:
            return None
    data = path.read_bytes()
    machine = _HEADER.unpack_from(data)[1]
    if not data.startswith(_IDENTIFICATION) or machine not in MACHINES:
        raise ValueError(f"{path}: not for a machine that this program runs on")
    sections = _sections(data)
    entries = list(_dynamic(data, sections))
    needed = [_string(data, sections, value) for tag, value in entries if tag == _DT_NEEDED]
    paths = [_string(data, sections, value) for tag, value in entries if tag in (_DT_RPATH, _DT_RUNPATH)]
    versions = sorted({name for need in _needs(data, sections) for name in need.versions.values()})
    stripped = all(section.kind != _SYMTAB for section in sections)
    searched = [directory for path in paths for directory in path.split(":")]
    return Elf(MACHINES[machine], tuple(needed), tuple(versions), stripped, tuple(searched))


def glibc(elf: Elf) -> tuple[int, ...]:
    """The newest version of the GNU C library that it asks for, as numbers; empty when it asks for none."""
    found = [re.fullmatch(r"GLIBC_(\d+(?:\.\d+)+)", version) for version in elf.versions]
    return max((tuple(map(int, match[1].split("."))) for match in found if match), default=())


def without(data: bytes, library: str) -> bytes:
    """The shared object ``data``, needing ``library`` no more: it is loaded where that is missing.

    Functions of it become weak, so that nobody minds that they are missing. One that is called all the same ends the
    process by SIGSEGV: this is for what is never called. Raises ``ValueError`` when ``library`` is not needed, or its
    functions have no versions by which they could be told from those of others.
    """
    sections = _sections(data)
    changed = bytearray(data)
    _forget_need(changed, data, sections, library)
    needs = [need for need in _needs(data, sections) if need.library == library]
    if not needs:
        raise ValueError(f"which functions are those of {library} cannot be told")
    _forget_versions(changed, data, sections, needs[0])
    _forget_symbols(changed, data, sections, needs[0])
    return bytes(changed)


def without_search_path(data: bytes) -> bytes:
    """The file ``data``, searching for libraries nowhere but where every program does.

    What a machine that builds Python writes in is a directory of that machine: whoever could make it on another one
    would have their libraries loaded.
    """
    sections = _sections(data)
    entries = list(_dynamic(data, sections))
    kept = [entry for entry in entries if entry[0] not in (_DT_RPATH, _DT_RUNPATH)]
    changed = bytearray(data)
    _write_dynamic(changed, sections, kept + [(_DT_NULL, 0)] * (len(entries) - len(kept)))
    return bytes(changed)


def _forget_need(changed: bytearray, data: bytes, sections: list[_Section], library: str) -> None:
    """Close the gap that the library leaves in the table of what to load."""
    entries = list(_dynamic(data, sections))
    kept = [entry for entry in entries if entry[0] != _DT_NEEDED or _string(data, sections, entry[1]) != library]
    if len(kept) == len(entries):
        raise ValueError(f"{library} is not needed")
    _write_dynamic(changed, sections, kept + [(_DT_NULL, 0)] * (len(entries) - len(kept)))


def _forget_versions(changed: bytearray, data: bytes, sections: list[_Section], need: _Need) -> None:
    """Take the library out of the chain of versions.

    ld.so(8) takes a version of a library that is not loaded for an error, although nothing asks for the symbol.
    """
    chain = list(_needs(data, sections))
    before = [other for other in chain if other.place + other.next == need.place and other.next]
    shift = {_DT_VERNEEDNUM: -1, _DT_VERNEED: 0 if before else need.next}
    entries = list(_dynamic(changed, sections))
    _write_dynamic(changed, sections, [(tag, value + shift.get(tag, 0)) for tag, value in entries])
    if before:
        following = before[0].next + need.next if need.next else 0
        struct.pack_into("<I", changed, before[0].place + _NEED_NEXT, following)
    # What readelf(1), strip(1) and whoever else goes by sections look at.
    table = _only(sections, _VERNEED)
    moved = shift[_DT_VERNEED]
    place = (table.address + moved, table.offset + moved, table.size - moved)
    struct.pack_into("<3Q", changed, table.place + _SECTION_PLACE, *place)
    struct.pack_into("<I", changed, table.place + _SECTION_INFO, len(chain) - 1)


def _forget_symbols(changed: bytearray, data: bytes, sections: list[_Section], need: _Need) -> None:
    """Symbols with a version of the library: from now on without a version, and weak."""
    versions, symbols = _only(sections, _VERSYM), _only(sections, _DYNSYM)
    for number in range(versions.size // 2):
        if struct.unpack_from("<H", data, versions.offset + 2 * number)[0] & _VERSION in need.versions:
            struct.pack_into("<H", changed, versions.offset + 2 * number, _GLOBAL)
            info = symbols.offset + _SYMBOL_SIZE * number + _SYMBOL_INFO
            changed[info] = _WEAK << 4 | data[info] & 0xF


def _sections(data: bytes) -> list[_Section]:
    header = _HEADER.unpack_from(data)
    start, size, count = header[5], header[10], header[11]
    found = []
    for place in range(start, start + size * count, size):
        _, kind, _, address, offset, length, link, info, *_ = _SECTION.unpack_from(data, place)
        found.append(_Section(place, kind, address, offset, length, link, info))
    return found


def _only(sections: list[_Section], kind: int) -> _Section:
    return next(section for section in sections if section.kind == kind)


def _dynamic(data: bytes | bytearray, sections: list[_Section]) -> Iterator[tuple[int, int]]:
    """The entries of the dynamic section, up to and with the first that ends it."""
    for section in sections:
        if section.kind == _DYNAMIC:
            for place in range(section.offset, section.offset + section.size, _ENTRY.size):
                tag, value = _ENTRY.unpack_from(data, place)
                yield tag, value
                if tag == _DT_NULL:
                    return


def _write_dynamic(changed: bytearray, sections: list[_Section], entries: list[tuple[int, int]]) -> None:
    place = _only(sections, _DYNAMIC).offset
    for tag, value in entries:
        _ENTRY.pack_into(changed, place, tag, value)
        place += _ENTRY.size


def _needs(data: bytes, sections: list[_Section]) -> Iterator[_Need]:
    for section in sections:
        if section.kind != _VERNEED:
            continue
        place = section.offset
        for _ in range(section.info):
            _, count, file, aux, following = _NEED.unpack_from(data, place)
            versions, at = {}, place + aux
            for _ in range(count):
                _, _, number, name, step = _AUX.unpack_from(data, at)
                versions[number] = _text(data, sections[section.link], name)
                at += step
            yield _Need(place, following, _text(data, sections[section.link], file), versions)
            place += following


def _string(data: bytes, sections: list[_Section], offset: int) -> str:
    """A string that the dynamic section names."""
    return _text(data, sections[_only(sections, _DYNAMIC).link], offset)


def _text(data: bytes, strings: _Section, offset: int) -> str:
    begin = strings.offset + offset
    return data[begin : data.index(b"\0", begin)].decode("ascii")
