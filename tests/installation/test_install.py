"""Installing into a small system, taking back, upgrading: real files, real accounts, real processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.declaration.default import TEMPLATE
from agent.errors import EXIT_CONFIGURATION, RuntimeFailure, UsageError
from agent.installation.install import Refused, install, lay, uninstall
from agent.installation.lock import only_one
from agent.installation.record import read
from agent.installation.steps import Step
from agent.installation.timers import DROP_IN, mark
from agent.linux.files import PrefixLock
from tests.installation.conftest import Make
from tests.installation.image import payload, snapshot, system


@contextmanager
def running(program: Path) -> Iterator[int]:
    """Somebody executes that program."""
    process = subprocess.Popen([program, "1000"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def paths(image: Path) -> set[str]:
    return set(snapshot(image))


def test_everything_is_laid(made: Make, image: Path) -> None:
    outcome = install(made(), "/srv", image)
    assert (outcome.before, outcome.version, outcome.kept) == ("", "0.1.0", ())
    library = image / "srv/lib/agent"
    assert (library / "current").readlink() == Path("0.1.0")
    assert (image / "srv/bin/agentctl").readlink() == Path("../lib/agent/current/agentctl")
    assert (image / "usr/local/bin/agentctl").readlink() == Path("/srv/bin/agentctl")
    subprocess.run([image / "srv/bin/agentctl", "0"], check=True)
    assert (library / "0.1.0/lib/link.so").read_bytes() == b"library"
    assert (image / "srv/share/man/man1/agentctl.1").read_text() == ".TH agentctl 1\n"
    assert (image / "srv/share/bash-completion/completions/agentctl").is_file()
    assert (image / "srv/share/doc/agent/examples/privileged.conf").is_file()
    assert "ExecStart=/srv/lib/agent/current/agentctl run" in (image / "etc/systemd/system/agent.service").read_text()
    assert (image / "etc/systemd/system/agent-job@.timer").is_file()
    user = next(line for line in (image / "etc/passwd").read_text().splitlines() if line.startswith("agent:"))
    uid, gid = map(int, user.split(":")[2:4])
    assert (image / "srv/run").stat().st_uid == uid
    declaration = (image / "srv/key/env.toml").stat()
    assert (declaration.st_uid, declaration.st_gid, declaration.st_mode & 0o7777) == (0, gid, 0o640)
    assert (image / "srv/key/env.toml").read_text() == TEMPLATE


def test_the_record_names_exactly_what_was_laid(made: Make, image: Path) -> None:
    before = paths(image)
    install(made(), "/srv", image)
    record = read(image, "/srv")
    assert record and record.complete and record.version == "0.1.0" and record.users == record.groups == ("agent",)
    data = {path.removeprefix("/") for path in record.data}
    assert data == {f"srv/{name}" for name in ("key", "run", "tmp", "spool", "log")}
    new = {path for path in paths(image) - before if not path.startswith(tuple(data))}
    assert new == {entry.path.removeprefix("/") for entry in record.laid} | {"srv/lib/agent/install.json"}


def test_a_second_time_there_is_nothing_to_do_and_nothing_is_touched(made: Make, image: Path) -> None:
    tree = made()
    install(tree, "/srv", image)
    lock = image / "run"  # it comes and goes in there
    times = {path: path.lstat().st_mtime_ns for path in image.rglob("*") if path != lock}
    assert install(tree, "/srv", image).steps == ()
    assert {path: path.lstat().st_mtime_ns for path in image.rglob("*") if path != lock} == times


def test_what_was_damaged_is_mended(made: Make, image: Path) -> None:
    tree = made()
    install(tree, "/srv", image)
    whole = snapshot(image)
    (image / "srv/lib/agent/0.1.0/lib/library.so").write_bytes(b"damaged")
    (image / "srv/lib/agent/0.1.0/agentctl").chmod(0o644)
    (image / "srv/bin/agentctl").unlink()
    (image / "etc/tmpfiles.d/agent.conf").unlink()
    (image / "srv/tmp").rmdir()
    (image / "srv/log").chmod(0o777)
    assert install(tree, "/srv", image).steps
    assert snapshot(image) == whole


def test_a_dry_run_tells_all_and_touches_nothing(made: Make, image: Path) -> None:
    before, tree = snapshot(image), made()
    told = install(tree, "/srv", image, dry_run=True)
    assert snapshot(image) == before
    assert told.dry_run and told.steps == install(tree, "/srv", image).steps
    whole = snapshot(image)
    told = uninstall("/srv", image, purge=True, dry_run=True)
    assert snapshot(image) == whole
    assert told.steps == uninstall("/srv", image, purge=True).steps


def test_each_step_is_told_when_it_is_done(made: Make, image: Path) -> None:
    told: list[Step] = []
    outcome = install(made(), "/srv", image, tell=told.append)
    assert tuple(told) == outcome.steps


def test_another_prefix_is_put_in_everywhere(made: Make, image: Path) -> None:
    install(made(), "/opt/some-thing/agent/", image)
    assert not (image / "srv/lib").exists()
    assert (image / "opt/some-thing/agent/lib/agent/current").is_symlink()
    unit = (image / "etc/systemd/system/agent.service").read_text()
    assert "ExecStart=/opt/some-thing/agent/lib/agent/current/agentctl run\n" in unit
    assert "ReadWritePaths=/opt/some-thing/agent/run -/opt/some-thing/agent/spool\n" in unit
    assert (image / "opt/some-thing/agent/spool/agent").is_dir()
    assert "/opt/some-thing/agent:" in (image / "etc/passwd").read_text()
    for file in (image / "etc").rglob("agent*"):
        assert "/srv" not in (str(file.readlink()) if file.is_symlink() else file.read_text())


@pytest.mark.parametrize("prefix", ["/srv", "/opt/a/b"])
def test_a_purge_leaves_nothing(made: Make, image: Path, prefix: str) -> None:
    before = snapshot(image)
    install(made(), prefix, image)
    (image / f".{prefix}/spool/agent/events.db").write_bytes(b"data")
    (image / f".{prefix}/key/secrets").mkdir()
    assert uninstall(prefix, image, purge=True).kept == ()
    assert snapshot(image) == before
    assert uninstall(prefix, image).steps == ()


def test_without_a_purge_declaration_data_logs_and_user_stay(made: Make, image: Path) -> None:
    before = paths(image)
    install(made(), "/srv", image)
    (image / "srv/log/api.log").write_text("a line\n")
    outcome = uninstall("/srv", image)
    assert outcome.kept == ("/srv/key", "/srv/spool", "/srv/log")
    assert paths(image) - before == {
        *("srv/key", "srv/key/env.toml", "srv/log", "srv/log/api.log", "srv/spool", "srv/spool/agent"),
        *("srv/lib", "srv/lib/agent", "srv/lib/agent/install.json"),
    }
    assert "agent:" in (image / "etc/passwd").read_text()
    assert uninstall("/srv", image).steps == ()
    assert uninstall("/srv", image, purge=True).steps
    assert paths(image) == before and "agent:" not in (image / "etc/passwd").read_text()


def test_what_was_kept_is_there_again_after_the_next_installation(made: Make, image: Path) -> None:
    tree = made()
    install(tree, "/srv", image)
    (image / "srv/key/env.toml").write_text("# mine\n")
    whole = snapshot(image)
    uninstall("/srv", image)
    install(tree, "/srv", image)
    assert snapshot(image) == whole


def test_a_user_and_directories_that_were_there_before_outlive_any_uninstall(made: Make, image: Path) -> None:
    for database, line in (("passwd", "agent:x:990:990::/home/agent:/bin/bash\n"), ("group", "agent:x:990:\n")):
        (image / "etc" / database).write_text((image / "etc" / database).read_text() + line)
    (image / "srv/run").mkdir()  # an empty one is no objection
    (image / "srv/log").mkdir()
    (image / "srv/log/theirs").touch()
    os.chown(image / "srv/log", 990, 990)
    outcome = install(made(), "/srv", image)
    assert outcome.users == ("agent",)
    assert (image / "srv/run").stat().st_uid == 990
    uninstall("/srv", image)
    outcome = uninstall("/srv", image, purge=True)
    assert outcome.kept == ("/srv/run", "/srv/log")
    assert (image / "srv/log/theirs").exists() and not (image / "srv/spool").exists()
    assert "agent:x:990:990::/home/agent:/bin/bash\n" in (image / "etc/passwd").read_text()


@pytest.mark.parametrize("theirs", ["# mine\n", None], ids=["file", "dangling link"])
def test_a_declaration_that_is_there_is_never_touched(made: Make, image: Path, theirs: str | None) -> None:
    (image / "srv/key").mkdir()
    if theirs:
        (image / "srv/key/env.toml").write_text(theirs)
    else:
        (image / "srv/key/env.toml").symlink_to("/etc/elsewhere")
    before = snapshot(image)["srv/key/env.toml"]
    install(made(), "/srv", image)
    assert snapshot(image)["srv/key/env.toml"] == before
    assert not (image / "etc/elsewhere").exists()


def test_a_newer_version_is_laid_beside_the_old_one_and_swapped(made: Make, image: Path) -> None:
    install(made("0.1.0"), "/srv", image)
    outcome = install(made("0.1.1"), "/srv", image)
    assert (outcome.before, outcome.version) == ("0.1.0", "0.1.1")
    library = image / "srv/lib/agent"
    assert (library / "current").readlink() == Path("0.1.1")
    assert "# of 0.1.1" in (image / "etc/systemd/system/agent.service").read_text()
    assert {path.name for path in library.iterdir()} == {"0.1.0", "0.1.1", "current", "install.json"}
    install(made("0.2.0"), "/srv", image)
    assert {path.name for path in library.iterdir()} == {"0.1.1", "0.2.0", "current", "install.json"}


def test_a_version_that_is_being_executed_stays_until_nobody_does(made: Make, image: Path) -> None:
    library = image / "srv/lib/agent"
    install(made("0.1.0"), "/srv", image)
    with running(library / "0.1.0/agentctl") as pid:
        install(made("0.1.1"), "/srv", image)
        newest = made("0.1.2")
        assert install(newest, "/srv", image).running == (pid,)
        assert (library / "0.1.0/agentctl").exists()
    assert install(newest, "/srv", image).running == ()
    assert not (library / "0.1.0").exists() and (library / "0.1.1").exists()


def test_a_second_one_is_refused_or_waits_as_it_is_told(made: Make, image: Path) -> None:
    tree = made()
    with ThreadPoolExecutor() as threads:
        with only_one(image, "/srv"):
            with pytest.raises(RuntimeFailure, match="is just installing, uninstalling or changing timers"):
                install(tree, "/srv", image)
            waiting = threads.submit(install, tree, "/srv", image, wait=True)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
            assert not (image / "srv/lib").exists()
        assert waiting.result(20).steps


def test_an_older_version_is_gone_back_to_only_on_purpose(made: Make, image: Path) -> None:
    old = made("0.1.9")
    install(old, "/srv", image)
    install(made("0.1.10"), "/srv", image)
    before = snapshot(image)
    with pytest.raises(UsageError) as raised:
        install(old, "/srv", image)
    assert raised.value.exit_code == EXIT_CONFIGURATION
    assert "0.1.10 is installed below /srv, and this is 0.1.9: --force goes back to it" in str(raised.value)
    assert snapshot(image) == before
    install(old, "/srv", image, force=True)
    assert (image / "srv/lib/agent/current").readlink() == Path("0.1.9")
    assert (image / "srv/lib/agent/0.1.10").is_dir(), "and forward again"


def test_another_build_of_a_version_replaces_it_but_not_under_who_executes_it(made: Make, image: Path) -> None:
    install(made("0.1.0"), "/srv", image)
    other = made("0.1.0", build="b")
    before = snapshot(image)
    with (
        running(image / "srv/lib/agent/0.1.0/agentctl"),
        pytest.raises(Refused, match=r"another build of 0\.1\.0 is run"),
    ):
        install(other, "/srv", image)
    assert snapshot(image) == before
    install(other, "/srv", image)
    assert (image / "srv/lib/agent/0.1.0/lib/base/module.py").read_text() == "build b of 0.1.0"


def test_a_unit_that_was_changed_since_is_kept_from_upgrades_and_uninstalls(made: Make, image: Path) -> None:
    install(made("0.1.0"), "/srv", image)
    unit = image / "etc/systemd/system/agent.service"
    unit.write_text("[Service]\n# mine\n")
    before, newer = snapshot(image), made("0.1.1")
    with pytest.raises(Refused, match=r"agent\.service was changed since it was installed: .*systemctl edit"):
        install(newer, "/srv", image)
    assert snapshot(image) == before
    assert "/etc/systemd/system/agent.service" in uninstall("/srv", image).kept
    assert unit.read_text() == "[Service]\n# mine\n"
    install(newer, "/srv", image, force=True)
    assert "# of 0.1.1" in unit.read_text()


def test_a_purge_takes_what_was_changed_too(made: Make, image: Path) -> None:
    before = snapshot(image)
    install(made(), "/srv", image)
    (image / "etc/systemd/system/agent.service").write_text("[Service]\n# mine\n")
    uninstall("/srv", image, purge=True)
    assert snapshot(image) == before


def test_what_is_not_ours_keeps_its_directory(made: Make, image: Path) -> None:
    install(made(), "/srv", image)
    (image / "srv/share/man/man1/other.1").write_text("theirs")
    assert "/srv/share/man/man1" in uninstall("/srv", image, purge=True).kept
    assert {path for path in paths(image) if path.startswith("srv/")} == {
        *("srv/share", "srv/share/man", "srv/share/man/man1", "srv/share/man/man1/other.1")
    }


def test_enabled_units_are_disabled(made: Make, image: Path) -> None:
    before = snapshot(image)
    install(made(), "/srv", image)
    subprocess.run(["systemctl", f"--root={image}", "enable", "agent.socket"], check=True, capture_output=True)
    for wants in ("sockets.target.wants", "agent.service.wants"):
        assert (image / "etc/systemd/system" / wants / "agent.socket").is_symlink()
    uninstall("/srv", image, purge=True)
    assert snapshot(image) == before


def test_what_was_made_of_our_jobs_goes_with_them_and_an_operators_drop_in_stays(made: Make, image: Path) -> None:
    (image / "var/lib/systemd/timers").mkdir(parents=True)
    before = snapshot(image)
    install(made(), "/srv", image)
    units = image / "etc/systemd/system"
    for directory, text in (
        ("agent-job@nightly.timer.d", f"{mark(Path('/srv'))}\n[Timer]\n"),
        ("agent-job@nightly.service.d", f"{mark(Path('/srv'))}\n[Service]\n"),
    ):
        (units / directory).mkdir()
        (units / directory / DROP_IN).write_text(text)
    (units / "timers.target.wants").mkdir()
    (units / "timers.target.wants/agent-job@nightly.timer").symlink_to("/etc/systemd/system/agent-job@.timer")
    (image / "var/lib/systemd/timers/stamp-agent-job@nightly.timer").touch()
    (units / "agent-job@nightly.service.d/operator.conf").write_text("[Service]\n")
    uninstall("/srv", image, purge=True)
    left = {path for path in snapshot(image) if path not in before}
    assert left == {f"etc/systemd/system/agent-job@nightly.service.d{more}" for more in ("", "/operator.conf")}


def test_the_journals_catalog_is_brought_up_to_date_where_there_is_one(made: Make, image: Path) -> None:
    (image / "var/lib/systemd/catalog").mkdir(parents=True)
    (image / "usr/lib/systemd/catalog").mkdir(parents=True)
    other = "-- fc2e22bc6ee647b6b90729ab34a250b1\nSubject: Another\n\nOf others.\n"
    (image / "usr/lib/systemd/catalog/other.catalog").write_text(other)
    subprocess.run(["journalctl", "--update-catalog", f"--root={image}"], check=True)
    database = image / "var/lib/systemd/catalog/database"
    tree = made()
    install(tree, "/opt/agent", image)
    assert b"Subject: A worker was started\n\nBelow /opt/agent." in database.read_bytes()
    assert install(tree, "/opt/agent", image).steps == ()
    uninstall("/opt/agent", image, purge=True)
    assert b"Subject: A worker" not in database.read_bytes() and b"Of others." in database.read_bytes()


def test_nothing_is_taken_from_under_who_executes_it(made: Make, image: Path) -> None:
    install(made(), "/srv", image)
    before = snapshot(image)
    with running(image / "srv/bin/agentctl") as pid, pytest.raises(RuntimeFailure, match=f"process {pid}; end it"):
        uninstall("/srv", image)
    lock = PrefixLock(image / "srv/run/agent.lock")
    lock.acquire()
    with pytest.raises(RuntimeFailure, match=r"an agent already runs on .*: stop it first"):
        uninstall("/srv", image)
    lock.release()
    (image / "srv/run/agent.lock").unlink()
    after = snapshot(image)
    assert {path for path in before if path != "srv/lib/agent/install.json"} == set(after) - {
        "srv/lib/agent/install.json"
    }


def test_a_tree_alone_is_laid_for_whoever_asks_and_used_again(made: Make, tmp_path: Path) -> None:
    tree, prefix = made(), tmp_path / "a prefix"
    program = lay(tree, str(prefix))
    assert program == prefix / "lib/agent/0.1.0/agentctl" and os.access(program, os.X_OK)
    times = {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")}
    assert lay(tree, str(prefix)) == program
    assert {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")} == times
    assert {path.name for path in (prefix / "lib/agent").iterdir()} == {"0.1.0", "install.json"}


def test_a_tree_beside_an_installation_leaves_it_as_it_is(made: Make, tmp_path: Path) -> None:
    image = system(tmp_path / "image")
    install(made("0.1.0"), "/srv", image)
    before = snapshot(image)
    prefix = image / "srv"
    record = (prefix / "lib/agent/install.json").read_text()
    (prefix / "lib/agent/install.json").write_text(record.replace('"/srv', f'"{prefix}'))
    lay(payload(tmp_path / "newer", "0.1.1"), str(prefix))
    after = {path: thing for path, thing in snapshot(image).items() if "lib/agent/0.1.1" not in path}
    del before["srv/lib/agent/install.json"], after["srv/lib/agent/install.json"]
    assert after == before


@pytest.mark.parametrize("target", ["/data/agent", "../data/agent", "first"])
def test_a_prefix_that_is_reached_by_a_link_is_the_one_that_it_leads_to(made: Make, image: Path, target: str) -> None:
    (image / "data/agent").mkdir(parents=True)
    (image / "opt/first").symlink_to("/data/agent")
    (image / "opt/link").symlink_to(target)
    outcome = install(made(), "/opt/link", image)
    assert outcome.prefix == "/data/agent"
    assert (
        "ExecStart=/data/agent/lib/agent/current/agentctl run"
        in (image / "etc/systemd/system/agent.service").read_text()
    )
    assert install(made(), "/data/agent", image).steps == install(made(), "/opt/link", image).steps == ()
    assert uninstall("/opt/link", image, purge=True).kept == ()
    assert not any((image / "data/agent").iterdir())
