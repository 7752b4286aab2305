"""Where a program works when nobody says it, and where its secrets are, with and without what systemd hands over."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.paths import Paths, native_prefix


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program, built, in the place of an installed form."""
    program = tmp_path / "opt/lib/agent/0.1.0/agentctl"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.delenv("PREFIX", raising=False)
    return program


def test_an_installed_program_works_below_its_prefix(frozen: Path, tmp_path: Path) -> None:
    (frozen.parent.parent / "install.json").touch()
    assert Paths.of().prefix == tmp_path / "opt"


def test_a_link_to_it_works_below_the_same(frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (frozen.parent.parent / "install.json").touch()
    (tmp_path / "agentctl").symlink_to(frozen)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "agentctl"))
    assert native_prefix() == str(tmp_path / "opt")


def test_whoever_names_a_prefix_has_that_one(frozen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (frozen.parent.parent / "install.json").touch()
    monkeypatch.setenv("PREFIX", "/elsewhere")
    assert Paths.of().prefix == Path("/elsewhere")
    assert Paths.of("/named").prefix == Path("/named")


def test_without_a_record_it_is_srv(frozen: Path) -> None:
    assert Paths.of().prefix == Path("/srv")


def test_the_record_of_another_layout_is_nobodys(frozen: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "lib/other/0.1.0/agentctl"
    program.parent.mkdir(parents=True)
    program.touch()
    (program.parent.parent / "install.json").touch()
    monkeypatch.setattr(sys, "executable", str(program))
    assert native_prefix() == "/srv"


def test_a_source_tree_works_below_srv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFIX", raising=False)
    assert native_prefix() == "/srv" and Paths.of().prefix == Path("/srv")


def test_credentials_are_where_systemd_says_and_nowhere_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Paths.of("/srv").credentials == tmp_path
    for nothing in ("", None):
        if nothing is None:
            monkeypatch.delenv("CREDENTIALS_DIRECTORY")
        else:
            monkeypatch.setenv("CREDENTIALS_DIRECTORY", nothing)
        assert Paths.of("/srv").credentials is None


def test_a_secret_is_a_credential_if_there_is_one_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    paths = Paths(Path("/srv"), Path("/srv/key/env.toml"), tmp_path)
    assert paths.secret("token") == tmp_path / "token"
    assert paths.secret("other") == Path("/srv/key/secrets/other")
    assert paths.credential("other") is None
    assert Paths(Path("/srv"), Path("/srv/key/env.toml")).secret("token") == Path("/srv/key/secrets/token")
