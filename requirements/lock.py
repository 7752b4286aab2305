"""Pin what pyproject.toml allows, with the hash of every published file: what it takes to build and run this program,
to develop it, and to make a binary of it.

Run by ``make lock``, with pip-tools, under the oldest Python that is supported. The lock is the same wherever it is
made: the configuration of pip on this machine is left aside, and no address of an index gets into the files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = [
    *("--quiet", "--upgrade", "--generate-hashes", "--strip-extras", "--allow-unsafe", "--no-header", "--no-annotate"),
    *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"),
]


def lock(name: str, wanted: list[str], *, within: Sequence[str] = ()) -> None:
    """Write ``name`` for the requirements ``wanted``, in the versions that the locks ``within`` have pinned already."""
    output = HERE / name
    output.unlink(missing_ok=True)
    constraint = [word for other in within for word in ("--constraint", str(HERE / other))]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_") or key == "PIP_CERT"}
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *constraint, "--output-file", str(output), "-"]
    subprocess.run(
        command, input="\n".join(wanted), text=True, check=True, env={**environment, "PIP_CONFIG_FILE": os.devnull}
    )
    lines = output.read_text().splitlines()
    output.write_text("\n".join(line for line in lines if line and not line.startswith("#")) + "\n")


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    run, groups = project["project"]["dependencies"], project["dependency-groups"]
    lock("build.txt", project["build-system"]["requires"])
    lock("run.txt", run)
    lock("dev.txt", run + groups["dev"], within=["run.txt"])
    lock("binary.txt", groups["binary"], within=["build.txt", "dev.txt"])


if __name__ == "__main__":
    main()
