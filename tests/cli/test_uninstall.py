"""``agentctl uninstall``, typed: the laid program takes itself back, while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import __version__
from tests.binary import built
from tests.cli.test_install import typed
from tests.installation.image import snapshot, system


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A system into which the program has been installed."""
    place = system(tmp_path / "image")
    assert typed("install", "--root", str(place)).returncode == 0
    return place


def test_it_is_taken_back_by_the_very_program_that_goes(image: Path) -> None:
    done = typed("uninstall", "--root", str(image), program=image / "srv/bin/agentctl", PREFIX="/srv")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert any(line.startswith(f"removed   /srv/lib/agent/{__version__} (") for line in lines)
    assert lines[-2:] == [
        f"{__version__} is no longer installed below /srv",
        "kept: /srv/key, /srv/spool, /srv/log: agentctl uninstall --purge removes them",
    ]
    assert not (image / "srv/bin").exists()
    done = typed("uninstall", "--root", str(image))
    assert done.stdout.splitlines()[0] == "nothing to do: nothing is installed below /srv"


def test_a_purge_leaves_nothing(tmp_path: Path, image: Path) -> None:
    done = typed("uninstall", "--purge", "--root", str(image), program=built().onefile)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2:] == ["deleted   user agent, group agent", "nothing of it is left below /srv"]
    assert snapshot(image) == snapshot(system(tmp_path / "untouched"))


def test_a_dry_run_and_json_say_what_would_be_done(image: Path) -> None:
    before = snapshot(image)
    done = typed("uninstall", "--dry-run", "--root", str(image))
    assert done.stdout.splitlines()[-2] == "nothing was done: this is what would be"
    said = json.loads(typed("uninstall", "--dry-run", "--json", "--root", str(image)).stdout)
    assert said["dry_run"] and not said["changed"] and said["before"] == __version__ and said["version"] == ""
    assert {"remove", "remove directory", "remove data", "record"} <= {step["step"] for step in said["steps"]}
    assert said["kept"] == ["/srv/key", "/srv/spool", "/srv/log"]
    assert snapshot(image) == before


def test_what_was_changed_is_named(image: Path) -> None:
    (image / "etc/systemd/system/agent.service").write_text("# mine\n")
    done = typed("uninstall", "--root", str(image))
    assert "kept: /etc/systemd/system/agent.service: changed since it was laid, or not laid by agentctl" in done.stdout
    assert (image / "etc/systemd/system/agent.service").read_text() == "# mine\n"
