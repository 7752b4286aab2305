"""What the one file carries packed, and unpacks when it is wanted: numpy, which is two thirds of it.

The one file unpacks itself at each start, and most commands need no numpy. So that and what it asks for lie in a single
file, which is unpacked beside everything else by the first process that imports numpy, or that installs all of it::

    length     8 bytes, little-endian: of the JSON that follows
    JSON       [[path, length of the packed file], …]
    files      one after the other, each packed by zlib

Several processes of one program share the directory, and may unpack at the same time: each file appears by a rename.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from agent.errors import RuntimeFailure
from agent.linux.environment import one_file

PACK = "packed"
"""In the directory of the one file; an installed form has none."""

_DONE = "unpacked"
_LENGTH = 8


def pack(files: Mapping[str, bytes]) -> bytes:
    """The pack of files by their paths."""
    import json
    import zlib

    packed = {path: zlib.compress(data, 9) for path, data in files.items()}
    table = json.dumps([[path, len(data)] for path, data in packed.items()]).encode()
    return b"".join([len(table).to_bytes(_LENGTH, "little"), table, *packed.values()])


def unpack(directory: Path) -> None:
    """Unpack what is packed in ``directory``, unless that was done before. Raises ``RuntimeFailure``."""
    if (directory / _DONE).exists():
        return
    import json  # not loaded where there is nothing to unpack
    import zlib

    try:
        with (directory / PACK).open("rb") as file:
            for path, length in json.loads(file.read(int.from_bytes(file.read(_LENGTH), "little"))):
                target = directory / path
                target.parent.mkdir(parents=True, exist_ok=True)
                scratch = target.with_name(f"{target.name}.{os.getpid()}")
                scratch.write_bytes(zlib.decompress(file.read(length)))
                scratch.rename(target)
        (directory / _DONE).touch()
    except OSError as error:
        raise RuntimeFailure(
            f"{directory}: the rest of this program cannot be unpacked there: {error.strerror}; "
            "TMPDIR names another place, and an installed agentctl needs none"
        ) from error


def unpack_for(module: str) -> None:
    """Have the pack unpacked when ``module`` is imported, if this is the one file."""
    place = getattr(sys, "_MEIPASS", None)
    if one_file() and place is not None:
        sys.meta_path.insert(0, _Unpacker(module, Path(place)))


class _Unpacker:
    """Finds no module itself: looks who is wanted, and makes that there."""

    def __init__(self, module: str, directory: Path) -> None:
        self._module = module
        self._directory = directory

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == self._module:
            unpack(self._directory)
            importlib.invalidate_caches()
            sys.meta_path.remove(self)
        return None
