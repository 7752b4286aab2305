"""Make the Debian package: ``python packaging/deb.py [DIRECTORY]``, ``dist`` when left out. What ``make deb`` does.

``DIRECTORY/agent-VERSION`` is the installed form that ``make binary`` has built; the package lays it below
``/usr/lib/agent`` and everything else where Debian has such things. dpkg-deb(1) is all that is needed. The same
installed form becomes the same package, to the bit.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the source that this file belongs to, whatever else is installed

from agent import __version__  # noqa: E402  # after the path
from agent.declaration.default import TEMPLATE  # noqa: E402  # after the path
from agent.installation.units import placed  # noqa: E402  # after the path
from build import EPOCH  # noqa: E402  # after the path
from licences import COMPONENTS  # noqa: E402  # after the path

SCRIPTS = Path(__file__).with_name("debian")

PACKAGE = "agent"
REVISION = "1"
"""Of the package, for one version of the program."""

MAINTAINER = "Agent maintainers <agent@packages.invalid>"

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Debian calls the machines of uname(2)."""

LIBRARY = "usr/lib/agent"
UNITS = "usr/lib/systemd/system"
DOCUMENTS = f"usr/share/doc/{PACKAGE}"

SHARED = {
    "completions/agentctl.bash": "usr/share/bash-completion/completions/agentctl",
    "completions/_agentctl": "usr/share/zsh/vendor-completions/_agentctl",
    "completions/agentctl.fish": "usr/share/fish/vendor_completions.d/agentctl.fish",
}

CONTROL = """\
Package: {package}
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: libc6 (>= {glibc}), nmap, systemd (>= 252), zlib1g
Recommends: curl
Section: net
Priority: optional
Description: declared services, packet capture and network scans on one host
 The agent reads one declaration, /srv/key/env.toml, of what should be true on
 this host, and keeps it true: packet capture that stays within its budget,
 network scans on a calendar, and any other service, each as a supervised
 child process. agentctl asks it over a local Unix socket.
"""

CHANGELOG = """\
{package} ({version}) unstable; urgency=medium

  * Version {upstream}; what is new is said where that is published.

 -- {maintainer}  {date}
"""

COPYRIGHT = """\
This package holds the agent, built with the interpreter and the libraries that
it needs. Each of them has its own licence; the text of every one is also below
/{library}/{version}/lib/share/agent/licences/.

{components}
"""

COMMON = {
    "GPL-2.0-or-later": "GPL-2",
    "GPL-2.0-only": "GPL-2",
    "GPL-3.0-or-later": "GPL-3",
    "GPL-2.0-or-later WITH Bootloader-exception": "GPL-2",
}
"""Licences whose text every Debian system has, in /usr/share/common-licenses."""

POINTER = "The text is in /usr/share/common-licenses/"

WHOLE = {
    "GNU GENERAL PUBLIC LICENSE": "GPL",
    "GNU LESSER GENERAL PUBLIC LICENSE": "LGPL",
    "Apache License": "Apache",
}
"""How such a text begins, and what it is called there, with its version."""

FULL = re.compile(
    rf"^[ \t]*({'|'.join(WHOLE)})\s+Version ([0-9.]+).*?^\s*END OF TERMS AND CONDITIONS$", re.MULTILINE | re.DOTALL
)


def package(tree: Path, output: Path, level: int = 6) -> Path:
    """Make the package of the installed form ``tree`` in the directory ``output``; returns its path.

    ``level`` is that of xz(1), from 0 to 9: 0 packs in a tenth of the time of 6, to a quarter more.
    Raises ``SystemExit`` when there is no such tree, or dpkg-deb fails.
    """
    try:
        manifest = json.loads((tree / "lib/share/agent/manifest.json").read_text())
    except OSError as error:
        raise SystemExit(f"{tree} holds no installed form ({error.strerror}): make binary") from error
    version = f"{manifest['version']}-{REVISION}"
    architecture = ARCHITECTURES[manifest["machine"]]
    target = output / f"{PACKAGE}_{version}_{architecture}.deb"
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="deb-", dir=output) as scratch:
        root = Path(scratch, "root")
        lay(tree, root, manifest["version"], epoch)
        describe(root, manifest, version, architecture)
        for path in [root, *root.rglob("*")]:
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        # Settings that would change the result are those of the environment: it gets none of ours.
        done = subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", f"-z{level}", "--build", root, Path(scratch, target.name)],
            env={"PATH": os.environ.get("PATH", os.defpath), "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"dpkg-deb: {done.stderr.strip()}")
        Path(scratch, target.name).replace(target)
    return target


def lay(tree: Path, root: Path, version: str, epoch: int) -> None:
    """Put everything that is installed where it goes, below ``root``."""
    library = root / LIBRARY
    shutil.copytree(tree, library / version, symlinks=True)
    (library / "current").symlink_to(version)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/agentctl").symlink_to("../lib/agent/current/agentctl")
    share = tree / "lib/share/agent"
    for here, there in SHARED.items():
        write(root / there, (share / here).read_bytes())
    write(root / "usr/share/man/man1/agentctl.1.gz", compressed((share / "man/agentctl.1").read_bytes()))
    for file in sorted((share / "systemd").iterdir()):
        write(root / destination(file.name), placed(file.read_text(), "/srv", f"/{LIBRARY}").encode())
    write(root / "usr/share/agent/env.toml", TEMPLATE.encode())
    write(root / DOCUMENTS / "copyright", copyright_of(share / "licences", version).encode())
    changes = CHANGELOG.format(
        package=PACKAGE,
        version=f"{version}-{REVISION}",
        upstream=version,
        maintainer=MAINTAINER,
        date=time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(epoch)),
    )
    write(root / DOCUMENTS / "changelog.Debian.gz", compressed(changes.encode()))
    write(root / "usr/share/lintian/overrides" / PACKAGE, (SCRIPTS / "lintian-overrides").read_bytes())


def destination(name: str) -> str:
    """Where a package has a file of ``systemd/``."""
    if name.endswith(".catalog"):
        return f"usr/lib/systemd/catalog/{name}"
    for ending, where in ((".sysusers.conf", "usr/lib/sysusers.d"), (".tmpfiles.conf", "usr/lib/tmpfiles.d")):
        if name.endswith(ending):
            return f"{where}/{name.removesuffix(ending)}.conf"
    return f"{DOCUMENTS}/examples/{name}" if name.endswith(".conf") else f"{UNITS}/{name}"


def describe(root: Path, manifest: dict[str, Any], version: str, architecture: str) -> None:
    """Write what dpkg reads: control, digests, and the scripts."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    directories = [path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()]
    control = root / "DEBIAN"
    control.mkdir()
    text = CONTROL.format(
        package=PACKAGE,
        version=version,
        architecture=architecture,
        maintainer=MAINTAINER,
        # As dpkg-gencontrol(1) counts: whole KiB of each file, and one for everything else.
        size=sum(-(-path.stat().st_size // 1024) for path in files) + len(directories),
        glibc=manifest["glibc"],
    )
    write(control / "control", text.encode())
    write(control / "md5sums", "".join(digests(root, files)).encode())
    for script in ("preinst", "postinst", "prerm", "postrm"):
        write(control / script, (SCRIPTS / script).read_bytes(), 0o755)


def digests(root: Path, files: list[Path]) -> Iterator[str]:
    """The lines of md5sums, deb-md5sums(5)."""
    for path in files:
        # dpkg looks for damage with it, and not for tampering.
        yield f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"


def copyright_of(texts: Path, version: str) -> str:
    """All licences: those that every Debian system has by their names, the others in full."""
    parts = []
    for component in COMPONENTS:
        found = sorted(texts.glob(f"{component.name}.txt")) + sorted(texts.glob(f"{component.name}-*.txt"))
        if not found:
            continue  # not in this build
        head = f"{component.name} ({component.purpose})\nLicence: {component.licence}\n"
        if common := COMMON.get(component.licence):
            parts.append(f"{head}{POINTER}{common}.\n")
        else:
            parts.append(head + "\n" + "\n".join(indented(text.read_text(errors="replace")) for text in found))
    return COPYRIGHT.format(library=LIBRARY, version=version, components="\n\n".join(parts))


def indented(text: str) -> str:
    """Set off from what is ours, and without texts in it that every Debian system has."""
    return "".join(f"  {line}".rstrip() + "\n" for line in referred(text).expandtabs().strip("\n").splitlines())


def referred(text: str) -> str:
    """The text, with a reference instead of each common licence that stands in it in full."""
    return FULL.sub(lambda found: f"{POINTER}{WHOLE[found[1]]}-{found[2]}.\n", text)


def compressed(data: bytes) -> bytes:
    """As ``gzip -9n`` has it: without a name or a time."""
    return gzip.compress(data, 9, mtime=0)


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A file, and the directories that lead to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist")
    print(f"  {package(output / f'agent-{__version__}', output)}")


if __name__ == "__main__":
    main()
