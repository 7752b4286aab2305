"""Where things are, with and without what systemd hands over."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.paths import Paths


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
