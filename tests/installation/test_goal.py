"""What an installation consists of."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent.installation.entry import Directory, File, parent
from agent.installation.goal import COMMAND, optional_directories, tree_only, whole
from agent.installation.record import ELSEWHERE
from tests.installation.conftest import Make


def test_every_file_has_its_source_and_every_directory_stands_before_what_is_in_it(made: Make) -> None:
    tree = made()
    aim, sources = whole(tree, "/opt/agent")
    seen = {"/"}
    for entry in (*aim.tree, *aim.setup, *aim.rest):
        assert parent(entry.path) in seen
        if isinstance(entry, Directory):
            seen.add(entry.path)
        if isinstance(entry, File):
            source = sources[entry.path]
            data = source.read_bytes() if isinstance(source, Path) else source
            assert hashlib.sha256(data).hexdigest() == entry.sha256
    assert aim.declaration and aim.declaration.path in sources


def test_what_leads_to_the_program_comes_last(made: Make) -> None:
    aim, _ = whole(made(), "/srv")
    assert [entry.path for entry in aim.rest[-2:]] == ["/srv/lib/agent/current", "/srv/bin/agentctl"]


def test_a_tree_alone_is_the_same_tree_and_nothing_else(made: Make) -> None:
    tree = made()
    aim, _ = tree_only(tree, "/srv")
    assert aim.tree == whole(tree, "/srv")[0].tree
    assert not (aim.setup or aim.rest or aim.optional or aim.declaration or aim.claims or aim.whole)
    listed = {entry.path for entry in aim.tree if not isinstance(entry, Directory)}
    assert listed == {f"/srv/lib/agent/0.1.0/{part.path}" for part in tree.manifest.files} | {aim.manifest}


def test_where_the_prefix_is_the_place_of_everybodys_commands_no_second_link_is_wanted(made: Make) -> None:
    aim, _ = whole(made(), "/usr/local")
    assert [link.path for link in aim.optional] == ["/etc/fish/completions/agentctl.fish"]
    assert COMMAND in [entry.path for entry in aim.rest]


def test_everybodys_links_lead_to_what_is_laid_and_are_known_to_the_record(made: Make) -> None:
    aim, _ = whole(made(), "/opt/agent")
    assert {link.path for link in aim.optional} < set(ELSEWHERE)
    assert {link.target for link in aim.optional} <= {entry.path for entry in aim.rest}
    assert [link.path for link in aim.optional] == [
        "/usr/local/share/bash-completion/completions/agentctl",
        "/usr/local/share/zsh/site-functions/_agentctl",
        "/etc/fish/completions/agentctl.fish",
        "/usr/local/share/man/man1/agentctl.1",
        "/usr/local/bin/agentctl",
    ]
    assert optional_directories(aim.optional[-2]) == ["/usr/local/share/man", "/usr/local/share/man/man1"]
    assert optional_directories(aim.optional[-1]) == []


def test_accounts_and_directories_are_those_of_the_tree(made: Make) -> None:
    aim, _ = whole(made(), "/opt/agent")
    assert aim.accounts.users == aim.accounts.groups == ("agent",)
    assert {claim.path for claim in aim.claims} >= {"/opt/agent", "/opt/agent/key", "/opt/agent/spool/agent"}
