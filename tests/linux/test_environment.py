from __future__ import annotations

import site
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agent
from agent.linux import environment
from agent.linux.environment import (
    DEFAULT_PATH,
    Program,
    base_environment,
    fresh_environment,
    frozen,
    installed_program,
    one_file,
    own_environment,
    own_program,
    running_program,
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


# -- the version that runs, and the one that is installed -------------------------------------------------------------


@pytest.fixture
def installation(bundle: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """``lib/agent`` of a prefix with two versions, of which 0.1.0 runs; ``current`` leads nowhere yet."""
    for version in ("0.1.0", "0.2.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "agentctl").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "0.1.0" / "agentctl"))
    return tmp_path


def test_what_is_installed_is_where_current_leads(installation: Path) -> None:
    current = installation / "current"
    current.symlink_to("0.1.0")
    assert installed_program() == running_program() == Program([str(installation / "0.1.0" / "agentctl")], {})
    current.unlink()
    current.symlink_to("0.2.0")
    # By a path without links: what has been tried out is what follows, wherever the link points by then.
    assert installed_program() == Program([str(installation / "0.2.0" / "agentctl")], {})
    assert running_program() == Program([str(installation / "0.1.0" / "agentctl")], {})


def test_where_current_leads_nowhere_the_version_that_runs_is_what_there_is(installation: Path) -> None:
    assert installed_program() == running_program()
    (installation / "current").symlink_to("0.3.0")
    assert installed_program() == running_program()
    (installation / "0.3.0").mkdir()
    assert installed_program() == running_program()


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The link by which a source tree is reached; the tree that runs was there when this process began."""
    for version in ("one", "two"):
        (tmp_path / version / "agent").mkdir(parents=True)
        (tmp_path / version / "agent" / "__init__.py").touch()
    (tmp_path / "link").symlink_to("one")
    monkeypatch.setattr(agent, "__file__", str(tmp_path / "link" / "agent" / "__init__.py"))
    monkeypatch.setattr(environment, "_HERE", tmp_path / "one")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "link"))
    return tmp_path / "link"


def test_a_source_tree_is_found_by_the_link_that_led_to_it(checkout: Path) -> None:
    assert installed_program() == running_program()
    checkout.unlink()
    checkout.symlink_to("two")
    found = installed_program()
    assert found != running_program()
    assert found.argv == [sys.executable, "-P", "-m", "agent"]
    assert found.variables["PYTHONPATH"].split(":")[0] == str(checkout.parent / "two")
    assert running_program().variables["PYTHONPATH"].split(":")[0] == str(checkout.parent / "one")


def test_an_environment_does_not_grow_with_each_version_that_follows(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        version = checkout.parent / f"{number}"
        (version / "agent").mkdir(parents=True)
        monkeypatch.setattr(agent, "__file__", str(version / "agent" / "__init__.py"))
        follows = installed_program().variables["PYTHONPATH"]
        assert follows == f"{version}:{checkout}"
        monkeypatch.setenv("PYTHONPATH", follows)
        monkeypatch.setattr(environment, "_HERE", version)


NAMES = (*NEVER, "PATH", "HOME", "PREFIX", "LD_LIBRARY_PATHS", "_PYI_PARENT_PROCESS_LEVEL")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.text(min_size=1, max_size=3)))
def test_what_one_version_hands_on_the_next_can_hand_on_unchanged(source: dict[str, str]) -> None:
    """The bootloader adds its own to what it finds, and keeps aside what it replaces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "frozen", True, raising=False)
        source.pop("LD_LIBRARY_PATH_ORIG", None)
        once = fresh_environment(source if "LD_LIBRARY_PATH" not in source else inside_a_bundle(source))
        assert fresh_environment(inside_a_bundle(once)) == once
        assert not [name for name in once if name.startswith("_PYI_")]
        assert once.get("LD_LIBRARY_PATH") == source.get("LD_LIBRARY_PATH")


def inside_a_bundle(outside: dict[str, str]) -> dict[str, str]:
    """What a program in a bundle finds, when its bootloader found that."""
    before = outside.get("LD_LIBRARY_PATH")
    kept = {} if before is None else {"LD_LIBRARY_PATH_ORIG": before}
    return {**outside, **kept, "LD_LIBRARY_PATH": f"/bundle/lib:{before}", "_PYI_ARCHIVE_FILE": "/bundle/agentctl"}
