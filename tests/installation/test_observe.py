"""What is seen of a system before anything is done to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.installation import goal
from agent.installation.entry import Directory, File, Link, Strange
from agent.installation.install import install, uninstall
from agent.installation.observe import observe, users_of
from agent.installation.timers import DROP_IN, mark
from tests.installation.conftest import Make
from tests.installation.image import snapshot


def test_of_nothing_nothing_is_seen(made: Make, image: Path) -> None:
    seen = observe(image, "/srv", goal.whole(made(), "/srv")[0])
    assert seen.record is None and seen.scratches == () and not seen.claims_met and not seen.declared
    assert set(seen.entries) == {"/etc", "/etc/systemd", "/etc/systemd/system", "/srv", "/usr", "/usr/local"}
    assert "/usr/local/bin/agentctl" in seen.reachable


def test_everything_is_seen_as_what_it_is(made: Make, image: Path) -> None:
    aim, _ = goal.whole(made(), "/srv")
    bin_ = image / "srv/bin"
    bin_.mkdir(parents=True)
    (bin_ / "agentctl").symlink_to("x")
    (bin_ / ".agentctl.agentctl").touch()
    (image / "etc/systemd/system/agent.service").write_text("")
    (image / "etc/systemd/system/agent.service").chmod(0o600)
    os.mkfifo(image / "etc/systemd/system/agent.socket")
    (image / "srv/share").symlink_to("/opt")
    seen = observe(image, "/srv", aim)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert seen.entries["/srv/bin/agentctl"] == Link("/srv/bin/agentctl", "x")
    assert seen.entries["/etc/systemd/system/agent.service"] == File("/etc/systemd/system/agent.service", "0600", empty)
    assert isinstance(seen.entries["/etc/systemd/system/agent.socket"], Strange)
    assert isinstance(seen.entries["/srv/share"], Directory), "a link to a directory will do where one is needed"
    assert seen.scratches == ("/srv/bin/.agentctl.agentctl",)
    assert seen.children["/srv/bin"] == {"agentctl", ".agentctl.agentctl"}


def test_links_that_start_units_are_seen_and_those_of_others_are_not(made: Make, image: Path) -> None:
    install(made(), "/srv", image)
    units = image / "etc/systemd/system"
    wants = units / "timers.target.wants"
    wants.mkdir()
    (wants / "agent-job@nightly.timer").symlink_to("/etc/systemd/system/agent-job@.timer")
    (wants / "other.timer").symlink_to("/etc/systemd/system/other.timer")
    (units / "probe.service").symlink_to("/etc/systemd/system/agent.service")
    (units / "multi-user.target.requires").mkdir()
    (units / "multi-user.target.requires/agent.service").symlink_to("../agent.service")
    (units / "agent-job@.service.d").mkdir()
    assert observe(image, "/srv", None).derived == (
        "/etc/systemd/system/multi-user.target.requires/agent.service",
        "/etc/systemd/system/probe.service",
        "/etc/systemd/system/timers.target.wants/agent-job@nightly.timer",
    )


def test_what_was_made_of_our_jobs_is_seen_and_an_operators_drop_in_is_not(made: Make, image: Path) -> None:
    install(made(), "/srv", image)
    units, stamps = image / "etc/systemd/system", image / "var/lib/systemd/timers"
    stamps.mkdir(parents=True)
    for stamp in ("stamp-agent-job@nightly.timer", "stamp-logrotate.timer"):
        (stamps / stamp).touch()
    for directory, text in (
        ("agent-job@nightly.timer.d", f"{mark(Path('/srv'))}\n[Timer]\n"),
        ("agent-job@other.timer.d", f"{mark(Path('/opt/agent'))}\n[Timer]\n"),
        ("agent-job@nightly.service.d", "[Service]\n# an operator's\n"),
    ):
        (units / directory).mkdir()
        (units / directory / DROP_IN).write_text(text)
    assert observe(image, "/srv", None).derived == (
        "/etc/systemd/system/agent-job@nightly.timer.d/10-declaration.conf",
        "/var/lib/systemd/timers/stamp-agent-job@nightly.timer",
    )


def test_whoever_executes_a_version_is_seen_by_the_file_and_not_by_its_name(made: Make, image: Path) -> None:
    install(made(), "/srv", image)
    seen = observe(image, "/srv", None)
    assert seen.record
    program = image / "srv/lib/agent/0.1.0/agentctl"
    with subprocess.Popen(["other-name", "1000"], executable=program) as process:
        assert users_of(image, "/srv", seen.record.laid) == {"0.1.0": [process.pid]}
        program.rename(program.with_name("renamed"))
        (program.with_name("renamed")).rename(program)
        assert observe(image, "/srv", None).in_use == {"0.1.0"}
        process.kill()
    assert observe(image, "/srv", None).in_use == set()


@pytest.mark.parametrize("change", ["mode", "owner", "missing"])
def test_a_directory_that_is_not_as_tmpfiles_wants_it_is_work_for_it(made: Make, image: Path, change: str) -> None:
    tree = made()
    install(tree, "/srv", image)
    aim, _ = goal.whole(tree, "/srv")
    assert observe(image, "/srv", aim).claims_met
    place = image / "srv/spool/agent"
    if change == "mode":
        place.chmod(0o700)
    elif change == "owner":
        os.chown(place, 0, 0)
    else:
        place.rmdir()
    assert not observe(image, "/srv", aim).claims_met


def test_a_place_for_everybodys_command_that_others_may_write_to_is_left_alone(made: Make, image: Path) -> None:
    (image / "usr/local/bin").chmod(0o777)
    seen = observe(image, "/srv", goal.whole(made(), "/srv")[0])
    assert "/usr/local/bin/agentctl" not in seen.reachable


@pytest.mark.parametrize("way", ["a file", "a link to nowhere", "somebody else's", "missing"])
def test_everybodys_manual_page_is_laid_only_where_directories_of_roots_lead(made: Make, image: Path, way: str) -> None:
    place = image / "usr/local/share/man"
    if way == "a file":
        place.write_text("")
    elif way == "a link to nowhere":
        place.symlink_to("/nowhere")
    elif way == "somebody else's":
        place.mkdir()
        os.chown(place, 1000, 1000)
    else:
        place.parent.rmdir()
    before = snapshot(image)
    install(made(), "/srv", image)
    kept = {path: thing for path, thing in snapshot(image).items() if path.startswith("usr/local/share/man")}
    assert kept == {path: thing for path, thing in before.items() if path.startswith("usr/local/share/man")}
    uninstall("/srv", image, purge=True)
    assert set(snapshot(image)) == set(before)


def test_what_cannot_be_trusted_is_not_looked_at_further(made: Make, image: Path) -> None:
    (image / "etc/systemd/system").chmod(0o777)
    with pytest.raises(RuntimeFailure, match="everybody may write to 'system' on the way"):
        observe(image, "/srv", goal.whole(made(), "/srv")[0])
