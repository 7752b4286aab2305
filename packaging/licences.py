"""What the bundle is made of, in which version, under which licence: docs/licences.md, and the texts in the bundle.

``python packaging/licences.py`` writes docs/licences.md. A build lays the texts of all licences into the bundle, as
they stand on the machine that builds, beside a list with every version. ``tests/packaging/test_licences.py`` holds this
table against what a bundle really holds.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
LOCKS = ("run.txt", "binary.txt")

COMMON = Path("/usr/share/common-licenses")
"""Where Debian keeps the licences that many share (base-files)."""


class Component(NamedTuple):
    """``licence`` is an SPDX expression. It is a ``distribution`` on the Python package index with top-level
    ``modules``, or a shared ``library``, by how its name begins: of this machine, or with a ``distribution`` one that
    its wheel brings; or else Python or this program itself. ``text`` names a text among Debian's common licences, for
    those that bring none, or only point to it.
    """

    name: str
    licence: str
    purpose: str
    distribution: str = ""
    modules: tuple[str, ...] = ()
    library: str = ""
    text: str = ""


GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"

COMPONENTS = (
    Component("agent", "GPL-2.0-or-later", "this program", modules=("agent", "early")),
    Component("Python", "PSF-2.0", "the interpreter and its library", library="libpython"),
    Component(
        "PyInstaller",
        "GPL-2.0-or-later WITH Bootloader-exception",
        "starts the interpreter, finds modules in the bundle",
        "pyinstaller",
        ("pyimod01_archive", "pyimod02_importers", "pyimod03_ctypes", "pyiboot01_bootstrap"),
    ),
    Component("click", "BSD-3-Clause", "the command line", "click", ("click",)),
    Component("h11", "MIT", "HTTP/1.1", "h11", ("h11",)),
    Component("msgspec", "BSD-3-Clause", "typed JSON", "msgspec", ("msgspec",)),
    Component(
        "numpy",
        "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
        "computes with columns of packets and flows",
        "numpy",
        ("numpy",),
    ),
    Component("psutil", "BSD-3-Clause", "figures of processes", "psutil", ("psutil",)),
    Component("python-nmap", "GPL-3.0-or-later", "reads nmap's XML", "python-nmap", ("nmap",), text="GPL-3"),
    Component("rich", "MIT", "tables on a terminal", "rich", ("rich",)),
    Component("scapy", "GPL-2.0-only", "binds libpcap, dissects control packets", "scapy", ("scapy",)),
    Component("sdnotify", "MIT", "tells systemd and the agent", "sdnotify", ("sdnotify",)),
    Component("tomli-w", "MIT", "writes TOML", "tomli-w", ("tomli_w",)),
    Component("libpcap", "BSD-3-Clause", "captures packets", library="libpcap.so"),
    Component("SQLite", "blessing", "databases", library="libsqlite3.so"),
    Component("libffi", "MIT", "calls libraries from Python", library="libffi.so"),
    Component("zlib", "Zlib", "unpacks the bundle", library="libz.so"),
    Component("Expat", "MIT", "reads XML, where Python brings none of its own", library="libexpat.so"),
    Component(
        "OpenBLAS",
        "BSD-3-Clause AND BSD-3-Clause-Open-MPI",
        "numpy asks for it; unused",
        "numpy",
        library="libscipy_openblas",
    ),
    Component("libgfortran", GCC, "OpenBLAS asks for it", "numpy", library="libgfortran"),
    Component(
        "libquadmath", "LGPL-2.1-or-later", "libgfortran asks for it", "numpy", library="libquadmath", text="LGPL-2.1"
    ),
    Component("libstdc++", GCC, "numpy asks for it", library="libstdc++.so"),
    Component("libgcc", GCC, "libstdc++ asks for it", library="libgcc_s.so"),
)


_PAGE = """\
# Licences

What the built program holds. The text of each licence lies in the installed form, below `lib/share/agent/licences/`,
with a list like this one that has every version. nmap is not bundled: it is run as the program that the host has.

| component | version | licence | what for |
|---|---|---|---|
{rows}

Licences are given as SPDX expressions. scapy is GPL-2.0-only and python-nmap GPL-3.0-or-later, and the two do not allow
one work to be made of both. The agent is GPL-2.0-or-later, so it goes with either; no process imports both (a test
holds it, for the source and for the built program), each worker loads one of them, and workers talk to the rest by
files, sockets and exit codes. Whether one archive that carries both is mere aggregation is a question for whoever
distributes it.
"""


def page(versions: dict[str, str]) -> str:
    """The list as Markdown. What is not among ``versions`` comes with a wheel, or from the machine that builds."""
    rows = [
        (one.name, versions.get(one.name, f"{one.distribution or 'the machine'}'s"), one.licence, one.purpose)
        for one in COMPONENTS
    ]
    return _PAGE.format(rows="\n".join(f"| {' | '.join(row)} |" for row in rows))


def pinned() -> dict[str, str]:
    """The versions that are the same wherever this source is built."""
    locked = "".join((ROOT / "requirements" / name).read_text() for name in LOCKS)
    found = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", locked, re.MULTILINE))
    libraries = {one.name: found[one.distribution] for one in COMPONENTS if one.modules and one.distribution}
    return {"agent": "this one", **libraries}


def lay(directory: Path, libraries: Mapping[str, Path], version: str) -> None:
    """Write the texts of all licences, and a list of them, into the empty ``directory``.

    ``libraries`` are the shared libraries that are bundled and where they are from, ``version`` is this program's.
    Raises ``SystemExit`` when a text is nowhere on this machine.
    """
    versions = {**pinned(), "agent": version, "Python": platform.python_version()}
    for component in COMPONENTS:
        origin = next((path for name, path in libraries.items() if Path(name).name.startswith(component.library)), None)
        if component.library and origin is None:
            versions[component.name] = "not in this build"
            continue
        if component.library and not component.distribution and component.name not in versions:
            versions[component.name] = _asked("--showformat=${Version}", "--show", _package(origin))
        text = _text(component, origin)
        if not text:
            raise SystemExit(f"the licence of {component.name} has to go with it, and is nowhere on this machine")
        (directory / f"{component.name}.txt").write_text(text)
    (directory / "licences.md").write_text(page(versions))


def _text(component: Component, origin: Path | None) -> str:
    if component.distribution:
        texts = _of_distribution(distribution(component.distribution))
        if component.library and origin:
            texts = {"Notice": _about(texts, origin.name)}
        if component.text:
            texts[component.text] = (COMMON / component.text).read_text()
        return _joined(texts)
    if component.name == "Python":
        return Path(os.__file__).with_name("LICENSE.txt").read_text()
    if component.library:
        return Path("/usr/share/doc", _package(origin).partition(":")[0], "copyright").read_text()
    return (ROOT / "LICENSE").read_text()


def _of_distribution(found: Distribution) -> dict[str, str]:
    """What a wheel brings as texts of its licence, by where they lie in it."""
    texts = {
        str(file).partition(".dist-info/")[2].removeprefix("licenses/"): Path(str(found.locate_file(file))).read_text()
        for file in found.files or ()
        if ".dist-info" in str(file) and re.search("LICEN[CS]E|COPYING", file.name)
    }
    return dict(sorted(texts.items(), key=lambda item: (item[0].count("/"), item[0])))


def _joined(texts: Mapping[str, str]) -> str:
    """One after the other; where there are several, each below its name."""
    if len(texts) == 1:
        return "".join(texts.values())
    return "\n\n".join(f"{name}\n{'=' * len(name)}\n\n{text}" for name, text in texts.items())


def _about(texts: Mapping[str, str], library: str) -> str:
    """The sections about a library in the texts of a wheel that bundles it, as auditwheel's users write them."""
    sections = [section for text in texts.values() for section in re.split("^(?=Name: )", text, flags=re.MULTILINE)[1:]]
    files = [(section, re.search(r"^Files: \S*?([^/\s]+)$", section, re.MULTILINE)) for section in sections]
    return "\n".join(section for section, name in files if name and fnmatchcase(library, f"{name[1]}*"))


def _package(library: Path | None) -> str:
    """The Debian package that a library of this machine belongs to, as ``name:architecture``."""
    real = str(Path(library or "").resolve())
    # Debian's /lib is a link to /usr/lib, and dpkg(1) knows the name that the package was made with.
    return _asked("--search", real, real.removeprefix("/usr")).partition(": ")[0]


def _asked(*question: str) -> str:
    """What dpkg-query(1) answers. Raises ``SystemExit`` when it knows nothing."""
    done = subprocess.run(["dpkg-query", *question], capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"dpkg-query {' '.join(question)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    PAGE.write_text(page(pinned()))
