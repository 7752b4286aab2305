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
from agent.installation.entry import Directory, Entry, File, Link, name, parents, within
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

FISH = "/etc/fish"
COMMAND = "/usr/local/bin/agentctl"
"""Makes ``agentctl`` a command for everybody.

Like it, links in other places lead to the manual page and the completions: there man(1) and the shells look by
themselves, and not below any other prefix. fish looks into ``/usr/local/share`` only where ``$XDG_DATA_DIRS`` says so.
"""

ANCHORS = ("/usr/local/bin", "/usr/local/share", FISH)
"""The directories of the system in which such links are laid; where one is missing, nothing is laid there."""

DECLARATION_GROUP = "agent"


class Declaration(msgspec.Struct, frozen=True):
    """The first declaration, laid only where there is none, and never taken back but by a purge."""

    path: str
    group: str


class Goal(msgspec.Struct, frozen=True):
    """What is to be there. ``optional`` are laid only where nothing else is; ``whole``: more than a tree."""

    prefix: str
    version: str
    tree: tuple[Entry, ...]
    setup: tuple[Entry, ...] = ()
    rest: tuple[Entry, ...] = ()
    optional: tuple[Link, ...] = ()
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
    laid = [(tree.share / here, there) for here, there in SHARED.items() if (tree.share / here).is_file()]
    shared = [Unit(f"{prefix}/{there}", here.read_text(encoding="utf-8")) for here, there in laid]
    setup = [unit for unit in texts if unit.path.startswith((f"{SYSUSERS}/", f"{TMPFILES}/"))]
    others = [*shared, *(unit for unit in texts if unit not in setup)]
    links = [Link(f"{library(prefix)}/current", tree.manifest.version), Link(command(prefix), _to_command())]
    declaration = f"{prefix}/key/env.toml"
    return (
        msgspec.structs.replace(
            goal,
            setup=_with_directories(map(_file, setup)),
            rest=_with_directories([*map(_file, others), *links]),
            optional=_links_for_everybody(prefix, [path for _, path in laid]),
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


def _links_for_everybody(prefix: str, shared: Iterable[str]) -> tuple[Link, ...]:
    """To what lies below the prefix, from where everybody's programs look for it."""
    links = [
        Link(f"{FISH}/completions/{name(path)}" if "/fish/" in path else f"/usr/local/{path}", f"{prefix}/{path}")
        for path in shared
    ]
    return tuple(link for link in [*links, Link(COMMAND, command(prefix))] if link.path != link.target)


def optional_directories(link: Link) -> list[str]:
    """The directories that may have to be made for an optional link, those above first."""
    return [path for path in parents([link.path]) if not within(anchor(link), path)]


def anchor(link: Link) -> str:
    """Which of ``ANCHORS`` it is that an optional link lies in."""
    return next(path for path in ANCHORS if within(link.path, path))


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
