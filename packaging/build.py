"""Build the program: ``python packaging/build.py [DIRECTORY]``, ``dist`` when left out. What ``make binary`` does.

PyInstaller runs in an environment that is the same everywhere, so that the same source, with the same Python and
libraries, becomes the same bits: nothing of this machine's settings, a fixed hash seed, a fixed date.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

EPOCH = "1795651200"
"""The time of every file, in seconds since 1970, unless SOURCE_DATE_EPOCH names another."""

PASSED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "SOURCE_DATE_EPOCH")


def build(output: Path) -> None:
    """Put both forms into ``output``, which need not exist; what it holds of an earlier build is replaced.

    Raises ``SystemExit`` with everything that PyInstaller said, when it fails.
    """
    os.umask(0o022)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=output) as scratch:
        made = Path(scratch, "made")
        command = [
            *(sys.executable, "-P", "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
            *("--distpath", str(made), "--workpath", str(Path(scratch, "work")), str(ROOT / "build.spec")),
        ]
        with subprocess.Popen(
            command,
            env=environment(Path(scratch)),
            cwd=scratch,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            said = []
            for line in process.stdout or ():
                said.append(line)
                if line.startswith("  "):
                    print(line, end="", flush=True)
        if process.returncode:
            raise SystemExit("".join(said))
        for form in sorted(made.iterdir()):
            replace(form, output / form.name)


def environment(scratch: Path) -> dict[str, str]:
    """What PyInstaller finds in its environment; it keeps its own caches below ``scratch``."""
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    fixed = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    own = {"HOME": str(scratch), "PYINSTALLER_CONFIG_DIR": str(scratch / "cache")}
    return {"SOURCE_DATE_EPOCH": EPOCH, **passed, **fixed, **own}


def replace(new: Path, old: Path) -> None:
    """Move ``new`` to where ``old`` is."""
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)


def main() -> None:
    begun = time.monotonic()
    output = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist").absolute()
    build(output)
    print(f"  done in {time.monotonic() - begun:.0f} s: {output}")


if __name__ == "__main__":
    main()
