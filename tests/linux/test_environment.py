from __future__ import annotations

import site
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import environment
from agent.linux.environment import (
    DEFAULT_PATH,
    base_environment,
    fresh_environment,
    frozen,
    one_file,
    own_environment,
    own_program,
)

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
def test_a_bundle_gives_foreign_programs_no_library_path() -> None:
    inside = {"PATH": "/bin", "LD_LIBRARY_PATH": "/bundle/lib"}
    assert base_environment(inside) == {"PATH": "/bin"}
    assert base_environment({**inside, "LD_LIBRARY_PATH_ORIG": "/opt/lib"}) == {"PATH": "/bin"}


@pytest.mark.usefixtures("bundle")
def test_a_bundle_starts_itself_inside_of_itself() -> None:
    assert own_program() == [sys.executable]
    assert own_environment() == {"LD_LIBRARY_PATH": "/bundle/lib", "_PYI_ARCHIVE_FILE": "/bundle/agent"}


@pytest.mark.parametrize(
    ("executable", "unpacked", "single"),
    [
        ("/srv/lib/agent/0.1.0/agentctl", "/srv/lib/agent/0.1.0/lib", False),
        ("/home/me/agentctl", "/tmp/_MEI00002a", True),
        ("/tmp/agentctl", "/tmp/_MEI00002a", True),
    ],
    ids=["the installed form", "the one file", "the one file beside what it is unpacked to"],
)
def test_the_one_file_has_its_libraries_elsewhere(
    bundle: None, monkeypatch: pytest.MonkeyPatch, executable: str, unpacked: str, single: bool
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "_MEIPASS", unpacked, raising=False)
    assert (frozen(), one_file()) == (True, single)


def test_a_source_tree_is_no_file() -> None:
    assert (frozen(), one_file()) == (False, False)


@pytest.mark.usefixtures("bundle")
def test_another_version_finds_nothing_of_this_bundle() -> None:
    inside = {
        "PATH": "/bin",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "LD_LIBRARY_PATH": "/bundle/lib:/opt/lib",
        "_PYI_ARCHIVE_FILE": "/bundle/agent",
        "_PYI_APPLICATION_HOME_DIR": "/tmp/_MEI1",
    }
    kept = {"PATH": "/bin", "NOTIFY_SOCKET": "/run/systemd/notify"}
    assert fresh_environment(inside) == kept
    assert fresh_environment({**inside, "LD_LIBRARY_PATH_ORIG": "/opt/lib"}) == {**kept, "LD_LIBRARY_PATH": "/opt/lib"}


def test_without_a_bundle_another_version_finds_what_this_one_did() -> None:
    source = {"PATH": "/bin", "LD_LIBRARY_PATH": "/opt/lib"}
    assert fresh_environment(source) == source


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
