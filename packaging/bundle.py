"""What goes into the bundle and what stays out: called by build.spec, between one step of PyInstaller and the next.

The lists of PyInstaller are tables of contents: ``(name in the bundle, path on this machine, kind)``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import elf
import licences
import manual
from agent import __version__
from agent.cli.completion import script
from agent.linux.packed import PACK, pack

Entry = tuple[str, str, str]

LIBRARIES = "lib"
"""The directory beside the executable that holds everything else."""

SHARE = "share/agent"
"""What is laid with the program and not run, below ``LIBRARIES``: manual page, completions, units, licences."""

COMPLETIONS = {"bash": "agentctl.bash", "zsh": "_agentctl", "fish": "agentctl.fish"}
"""The shells, and what the file of each is called."""

GLIBC = (2, 36)
"""The newest C library that a bundle may ask for: Debian 12's. README.md says so."""

PROGRAM = "agentctl"
MANIFEST = f"{SHARE}/manifest.json"

EXCLUDED = [
    # What our libraries would use if it were there, and what is there only where this program is developed.
    *("typing_extensions", "attr", "attrs", "yaml", "colorama", "ipywidgets", "tzdata"),
    # Needs a display, a terminal of its own, or a person who debugs.
    *(
        "tkinter",
        "_tkinter",
        "IPython",
        "matplotlib",
        "curses",
        "_curses",
        "readline",
        "rlcompleter",
        "turtle",
        "idlelib",
    ),
    *("pdb", "pydoc", "doctest", "unittest", "webbrowser", "tracemalloc"),
    # What a host's own Python is adapted with.
    *("sitecustomize", "usercustomize"),
    # Builds and installs other programs.
    *("distutils", "setuptools", "pkg_resources", "ensurepip", "lib2to3", "importlib.metadata", "py_compile"),
    # Starts processes behind our back: a frozen program would run itself for each (agent.workers.scan.library).
    *("multiprocessing", "concurrent.futures.process"),
    # Encrypts, and brings OpenSSL; hashlib has what we need in modules of its own.
    *("ssl", "_ssl", "_hashlib", "cryptography"),
    # Protocols, formats and archives that nobody speaks here.
    *("email", "http.client", "http.cookiejar", "urllib.request", "urllib.response", "urllib.error", "ftplib", "netrc"),
    *("xmlrpc", "xml.sax", "mimetypes", "configparser", "tarfile", "zipfile", "bz2", "_bz2"),
    *("lzma", "_lzma", "optparse", "uu", "_uuid"),
    # Asian multi-byte encodings: names and logs are UTF-8.
    *("_multibytecodec", "_codecs_cn", "_codecs_hk", "_codecs_iso2022", "_codecs_jp", "_codecs_kr", "_codecs_tw"),
    # Other systems.
    *(
        "asyncio.windows_events",
        "asyncio.windows_utils",
        "asyncio.proactor_events",
        "ctypes.wintypes",
        "ctypes.macholib",
    ),
    *("click._winconsole", "rich._win32_console", "rich._windows", "rich._windows_renderer", "scapy.arch.windows"),
    # rich: tables are all that is drawn.
    *(
        "pygments",
        "markdown_it",
        "mdurl",
        "rich.__main__",
        "rich.markdown",
        "rich.syntax",
        "rich.traceback",
        "rich.json",
    ),
    # scapy: libpcap's functions, and the layers that the inventory of hosts takes apart.
    *("scapy.all", "scapy.libs.matplot", "scapy.libs.manuf", "scapy.modules", "scapy.tools"),
    *("scapy.asn1", "scapy.asn1fields", "scapy.asn1packet", "scapy.layers.tls", "scapy.layers.quic"),
    *("scapy.layers.tpm", "scapy.layers.x509", "scapy.arch.bpf", "scapy.arch.libpcap", "scapy.arch.solaris"),
    *("scapy.arch.unix",),
    # numpy: what computes with arrays of integers, and not what is tested, drawn by lot, transformed or compiled with.
    *("numpy.random", "numpy.fft", "numpy.polynomial", "numpy.matlib", "numpy.ctypeslib", "numpy.core"),
    *("numpy.char", "numpy.rec", "numpy.strings", "numpy._core.defchararray", "numpy._core.strings"),
    *("numpy.testing", "numpy._core._multiarray_tests", "numpy.typing", "numpy._typing._add_docstring"),
    *("numpy.f2py", "numpy.distutils", "numpy.lib.recfunctions"),
]
"""Modules that are left out, with everything below them."""

HOOKS = ("pyi_rth_inspect", "pyi_rth_pkgutil")
"""What PyInstaller would run first of all in every process, for callers of ``inspect`` and ``pkgutil`` that we are not:
it reads the table of the whole library, through ``zipfile``."""

CALLED_BY_NAME = "libpcap.so."
"""How the one library begins that no other file asks for: ctypes loads it."""

UNCALLED = "libdbus-1.so.3"
"""What libpcap asks for and we do not call: it can listen to D-Bus as if it were a network, and libdbus would bring
libsystemd, libgcrypt and five more."""


LATER = ("numpy/", "numpy.libs/", "libstdc++.so.", "libgcc_s.so.")
"""How the names begin of what the one file unpacks only when somebody imports numpy: ``agent.linux.packed``."""

WHEELS = ".libs"
"""How a directory ends in which a wheel brings libraries."""


def scripts(entries: Iterable[Entry]) -> list[Entry]:
    """What is run at the start, without the hooks that do nothing for us."""
    return [entry for entry in entries if entry[0] not in HOOKS]


def binaries(entries: Iterable[Entry]) -> list[Entry]:
    """Python's modules in C, and those libraries that something left in the bundle asks for."""
    found = list(entries)
    asked = {Path(name).name: _needed(name, path) for name, path, _ in found}
    wanted = {
        Path(name).name
        for name, _, kind in found
        if kind == "EXTENSION" or Path(name).name.startswith((CALLED_BY_NAME, "libpython"))
    }
    fresh = wanted
    while fresh:
        fresh = {library for name in fresh for library in asked[name] if library in asked} - wanted
        wanted = wanted | fresh
    return [_as_it_is(entry) for entry in found if Path(entry[0]).name in wanted]


def _as_it_is(entry: Entry) -> Entry:
    """Libraries that a wheel brings, as data, which nobody strips: whoever made the wheel has moved parts of them, and
    strip(1) leaves such a file so that it cannot be loaded.
    """
    name, path, kind = entry
    return (name, path, "DATA" if Path(name).parent.name.endswith(WHEELS) else kind)


def _needed(name: str, path: str) -> set[str]:
    found = elf.read(Path(path))
    return set(found.needed if found else ()) - ({UNCALLED} if Path(name).name.startswith(CALLED_BY_NAME) else set())


def datas(entries: Iterable[Entry]) -> list[Entry]:
    """Data of libraries, without what pip wrote about how it installed them, and without links to the libraries that
    a wheel brings: who needs these looks for them where they are.
    """
    return [entry for entry in entries if ".dist-info/" not in entry[0] and entry[2] != "SYMLINK"]


def finish(tree: Path, epoch: int) -> None:
    """Complete the installed form at ``tree``: free libpcap from D-Bus and all of search paths, set modes and times,
    write the manifest.

    ``epoch`` is what every file's time becomes, in seconds since 1970.
    """
    for path in (tree / LIBRARIES).glob(f"{CALLED_BY_NAME}*"):
        if (found := elf.read(path)) and UNCALLED in found.needed:
            path.write_bytes(elf.without(path.read_bytes(), UNCALLED))
    files = [path for path in sorted(tree.rglob("*")) if not path.is_dir()]
    for path in files:
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link, and the manifest knows only files")
        if path != tree / PROGRAM and (found := elf.read(path)) and not _within(found, path, tree / LIBRARIES):
            path.write_bytes(elf.without_search_path(path.read_bytes()))
        path.chmod(0o755 if path == tree / PROGRAM else 0o644)
    (tree / LIBRARIES / MANIFEST).write_text(json.dumps(manifest(tree, files), indent=1) + "\n")
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (epoch, epoch))


def _within(found: elf.Elf, path: Path, library: Path) -> bool:
    """Whether a file in ``library`` looks for others in there only, wherever that lies: numpy's, and what it brings."""
    origin = [Path(os.path.normpath(one.replace("$ORIGIN", str(path.parent)))) for one in found.searched]
    return all(one.is_relative_to(library) for one in origin)


def manifest(tree: Path, files: Iterable[Path]) -> dict[str, Any]:
    """What the installed form is made of, apart from the manifest itself.

    ``machine`` as of uname(2); ``glibc`` the oldest C library that every file can be loaded with.
    """
    programs = [found for path in files if (found := elf.read(path))]
    return {
        "version": __version__,
        "machine": next(iter({program.machine for program in programs})),
        "glibc": ".".join(map(str, max(elf.glibc(program) for program in programs))),
        "files": [
            {
                "path": str(path.relative_to(tree)),
                "mode": f"{path.stat().st_mode & 0o7777:04o}",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in files
        ],
    }


def carried(tree: Path, scratch: Path) -> list[Entry]:
    """The whole installed form, as what the one file unpacks: the executable stands among the libraries there.

    What is ``LATER`` is packed into a file in ``scratch``.
    """
    library = tree / LIBRARIES
    entries = [(PROGRAM, str(tree / PROGRAM), "DATA")]
    later: dict[str, bytes] = {}
    for path in sorted(library.rglob("*")):
        name = str(path.relative_to(library))
        if path.is_dir():
            continue
        if name.startswith(LATER):
            later[name] = path.read_bytes()
        else:
            entries.append((name, str(path), "BINARY" if elf.read(path) else "DATA"))
    packed = scratch / PACK
    packed.write_bytes(pack(later))
    return [*entries, (PACK, str(packed), "DATA")]


def share(directory: Path) -> list[Entry]:
    """Everything below ``directory``, as data below ``SHARE``."""
    return [
        (f"{SHARE}/{path.relative_to(directory)}", str(path), "DATA")
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]


def gather(root: Path, directory: Path, libraries: Iterable[Entry], epoch: int) -> None:
    """Lay in the empty ``directory`` what is shared beside the program, from the source tree at ``root``.

    ``libraries`` are those in the bundle, ``epoch`` is the date of the manual page in seconds since 1970.
    """
    for name in ("man", "completions", "licences"):
        (directory / name).mkdir()
    (directory / "man" / "agentctl.1").write_text(manual.page(epoch))
    for shell, name in COMPLETIONS.items():
        (directory / "completions" / name).write_text(script(shell) + "\n")
    licences.lay(directory / "licences", {name: Path(path) for name, path, _ in libraries}, __version__)
    shutil.copyfile(root / "LICENSE", directory / "LICENSE")
    if (units := root / "systemd").is_dir():
        shutil.copytree(units, directory / "systemd")
