"""What an installation consists of, in the order in which it is laid, and where the contents come from.

First the tree of the version, of which nothing is used before it is whole; then what makes accounts and directories;
then everything that leads to the program: units, manual page, completions, and last ``current`` and the commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from agent.declaration.default import TEMPLATE
from agent.installation.entry import Directory, Entry, File, Link, parents
from agent.installation.record import library
from agent.installation.tree import MANIFEST, MANIFEST_MODE, PROGRAM, Tree
from agent.installation.units import SYSUSERS, TMPFILES, Accounts, Claim, Unit, accounts, claims, units

Source = Path | bytes
"""Where the contents of a file are: in another file, or here."""

Sources = Mapping[str, Source]
"""By the path at which they are laid."""

FILE_MODE = "0644"

SHARED = {
    "completions/agentctl.bash": "share/bash-completion/completions/agentctl",
    "completions/_agentctl": "share/zsh/site-functions/_agentctl",
    "completions/agentctl.fish": "share/fish/vendor_completions.d/agentctl.fish",
    "man/agentctl.1": "share/man/man1/agentctl.1",
}
"""Where what lies in the tree's ``share`` goes, below the prefix."""

COMMAND = "/usr/local/bin/agentctl"
"""Makes ``agentctl`` a command for everybody, where nothing is there yet."""

DECLARATION_GROUP = "agent"


class Declaration(msgspec.Struct, frozen=True):
    """The first declaration, laid only where there is none, and never taken back but by a purge."""

    path: str
    group: str


class Goal(msgspec.Struct, frozen=True):
    """What is to be there. ``optional`` is laid only where nothing else is; ``whole``: more than a tree."""

    prefix: str
    version: str
    tree: tuple[Entry, ...]
    setup: tuple[Entry, ...] = ()
    rest: tuple[Entry, ...] = ()
    optional: Link | None = None
    claims: tuple[Claim, ...] = ()
    accounts: Accounts = Accounts()
    declaration: Declaration | None = None
    whole: bool = False

    @property
    def place(self) -> str:
        """The directory of the version."""
        return f"{library(self.prefix)}/{self.version}"

    @property
    def manifest(self) -> str:
        """The path of the manifest, which tells one build from another."""
        return f"{self.place}/{MANIFEST}"


def tree_only(tree: Tree, prefix: str) -> tuple[Goal, Sources]:
    """The tree of the version below ``prefix``, and nothing that leads to it."""
    place = f"{library(prefix)}/{tree.manifest.version}"
    files: list[Entry] = [File(f"{place}/{MANIFEST}", MANIFEST_MODE, tree.manifest_digest)]
    sources: dict[str, Source] = {f"{place}/{MANIFEST}": tree.source(MANIFEST)}
    for part in tree.manifest.files:
        path = f"{place}/{part.path}"
        if part.link is not None:
            files.append(Link(path, part.link))
        else:
            files.append(File(path, part.mode, part.sha256 or ""))
            sources[path] = tree.source(part.path)
    return Goal(prefix, tree.manifest.version, _with_directories(sorted(files, key=lambda file: file.path))), sources


def whole(tree: Tree, prefix: str) -> tuple[Goal, Sources]:
    """Everything of an installation below ``prefix``. Raises ``RuntimeFailure``."""
    goal, sources = tree_only(tree, prefix)
    texts = units(tree.share / "systemd", prefix)
    shared = [
        Unit(f"{prefix}/{there}", (tree.share / here).read_text(encoding="utf-8"))
        for here, there in SHARED.items()
        if (tree.share / here).is_file()
    ]
    setup = [unit for unit in texts if unit.path.startswith((f"{SYSUSERS}/", f"{TMPFILES}/"))]
    others = [*shared, *(unit for unit in texts if unit not in setup)]
    links = [Link(f"{library(prefix)}/current", tree.manifest.version), Link(command(prefix), _to_command())]
    declaration = f"{prefix}/key/env.toml"
    return (
        msgspec.structs.replace(
            goal,
            setup=_with_directories(map(_file, setup)),
            rest=_with_directories([*map(_file, others), *links]),
            optional=Link(COMMAND, command(prefix)) if command(prefix) != COMMAND else None,
            claims=tuple(claim for unit in setup if unit.path.startswith(TMPFILES) for claim in claims(unit.text)),
            accounts=_accounts(unit.text for unit in setup if unit.path.startswith(SYSUSERS)),
            declaration=Declaration(declaration, DECLARATION_GROUP),
            whole=True,
        ),
        {
            **sources,
            **{unit.path: unit.text.encode() for unit in [*setup, *others]},
            declaration: TEMPLATE.encode(),
        },
    )


def command(prefix: str) -> str:
    """``PREFIX/bin/agentctl``."""
    return f"{prefix}/bin/{PROGRAM}"


def _to_command() -> str:
    return f"../lib/agent/current/{PROGRAM}"


def _file(unit: Unit) -> File:
    return File(unit.path, FILE_MODE, hashlib.sha256(unit.text.encode()).hexdigest())


def _accounts(texts: Iterable[str]) -> Accounts:
    found = [accounts(text) for text in texts]
    return Accounts(
        tuple(user for one in found for user in one.users), tuple(group for one in found for group in one.groups)
    )


def _with_directories(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries after all directories that they lie in."""
    listed = list(entries)
    return (*(Directory(path) for path in parents(entry.path for entry in listed)), *listed)
