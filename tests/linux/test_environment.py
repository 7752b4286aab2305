from __future__ import annotations

import os
import site
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import environment
from agent.linux.environment import DEFAULT_PATH, base_environment, own_environment, own_program

NEVER = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "_PYI_APPLICATION_HOME_DIR",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_LIBRARY_PATH_ORIG",
    "PYTHONPATH",
    "CREDENTIALS_DIRECTORY",
    "AGENT_MARK",
    "API_TOKEN",
)


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a PyInstaller bundle finds itself."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/bundle/lib")
    monkeypatch.setenv("_PYI_ARCHIVE_FILE", "/bundle/agent")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NEVER), st.text(max_size=3)))
def test_nothing_of_ours_passes(source: dict[str, str]) -> None:
    assert base_environment(source) == {"PATH": DEFAULT_PATH}


def test_user_locale_zone_and_terminal_pass() -> None:
    source = dict.fromkeys(
        ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_TIME", "TZ", "TERM"), "x"
    )
    assert base_environment({**source, **dict.fromkeys(NEVER, "y")}) == source


@pytest.mark.usefixtures("bundle")
def test_a_bundle_gives_foreign_programs_the_library_path_from_before_it() -> None:
    inside = {"PATH": "/bin", "LD_LIBRARY_PATH": "/bundle/lib"}
    assert base_environment(inside) == {"PATH": "/bin"}
    assert base_environment({**inside, "LD_LIBRARY_PATH_ORIG": "/opt/lib"}) == {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/opt/lib",
    }


@pytest.mark.usefixtures("bundle")
def test_a_bundle_starts_itself_inside_of_itself() -> None:
    assert own_program() == [os.path.realpath(sys.executable)]
    assert own_environment() == {"LD_LIBRARY_PATH": "/bundle/lib", "_PYI_ARCHIVE_FILE": "/bundle/agent"}


def test_a_source_tree_names_itself_and_keeps_what_was_named_before(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(environment.__file__).parents[2])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert own_program() == [sys.executable, "-P", "-m", "agent"]
    assert own_environment() == {"PYTHONPATH": root}
    monkeypatch.setenv("PYTHONPATH", "/more")
    assert own_environment() == {"PYTHONPATH": f"{root}:/more"}


def test_an_installed_package_needs_no_python_path(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(environment.__file__).parents[2])
    monkeypatch.setattr(site, "getsitepackages", lambda: [root])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert own_environment() == {}
    monkeypatch.setenv("PYTHONPATH", "/more")
    assert own_environment() == {"PYTHONPATH": "/more"}
