"""The files of a declaration as another user finds them."""

from __future__ import annotations

from pathlib import Path

from agent.declaration.sources import Disk
from agent.linux.owner import seen_by
from agent.linux.users import Credentials


class Seen(Disk):
    """What root finds on the disk, but each file with the eyes of ``user``. Credentials are systemd's to hand over."""

    def __init__(self, user: Credentials) -> None:
        super().__init__()
        self._user = user

    def by_root(self, path: Path) -> str:
        """The text of a file, whether or not the user may read it. Raises as ``read``."""
        return super().read(path)

    def read(self, path: Path) -> str:
        with seen_by(self._user):
            return super().read(path)

    def projects(self, directory: Path) -> list[Path]:
        with seen_by(self._user):
            return super().projects(directory)

    def objection(self, secret: Path, *, credential: bool) -> str | None:
        with seen_by(None if credential else self._user):
            return super().objection(secret, credential=credential)
