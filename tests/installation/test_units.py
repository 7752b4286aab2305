"""The files of ``systemd/`` for another prefix: whole words, everywhere, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.errors import RuntimeFailure
from agent.installation.units import Accounts, Claim, accounts, claims, destination, placed, units
from tests.installation.image import SYSTEMD

SHIPPED = Path(__file__).resolve().parents[2] / "systemd"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ExecStart=/srv/lib/agent/current/agentctl run", "ExecStart=/opt/a/lib/agent/current/agentctl run"),
        ("ExecStartPre=-/srv/bin/x", "ExecStartPre=-/opt/a/bin/x"),
        ("ReadWritePaths=/srv/run -/srv/log +/srv", "ReadWritePaths=/opt/a/run -/opt/a/log +/opt/a"),
        ("Environment=PREFIX=/srv", "Environment=PREFIX=/opt/a"),
        ('Environment="PREFIX=/srv" X', 'Environment="PREFIX=/opt/a" X'),
        ("BindPaths=/srv:/mnt,/srv", "BindPaths=/opt/a:/mnt,/opt/a"),
        ("# below /srv. And", "# below /opt/a. And"),
        ("/srv2 /srv-data /srv.old /srv_x", "/srv2 /srv-data /srv.old /srv_x"),
        (
            "/data/srv /data/srv/x ${HOME}/srv a/srv //srv ../srv",
            "/data/srv /data/srv/x ${HOME}/srv a/srv //srv ../srv",
        ),
        ("http://srv/x", "http://srv/x"),
        ("/srv/srv", "/opt/a/srv"),
    ],
)
def test_whole_words_are_put_below_another_prefix(text: str, meant: str) -> None:
    assert placed(text, "/opt/a") == meant
    assert placed(text, "/srv") == text


def test_the_program_may_lie_elsewhere_than_the_data() -> None:
    text = "ExecStart=/srv/lib/agent/current/agentctl run\nReadWritePaths=/srv/run /srv/lib/agents\n"
    assert placed(text, "/srv", "/usr/lib/agent") == (
        "ExecStart=/usr/lib/agent/current/agentctl run\nReadWritePaths=/srv/run /srv/lib/agents\n"
    )


@given(st.sampled_from([*SYSTEMD.values()]), st.from_regex(r"(/[a-z0-9._-]{1,8}){1,3}", fullmatch=True))
def test_a_prefix_that_was_put_in_leaves_no_word_of_the_old_one(text: str, prefix: str) -> None:
    assume(prefix not in text)  # it could not be told from what was there before
    assert placed(text, prefix).count(prefix) >= text.count("/srv")
    if "/srv" not in prefix:
        assert "/srv" not in placed(text, prefix)
        assert placed(text, prefix).replace(prefix, "/srv") == text


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("agent.service", "/etc/systemd/system/agent.service"),
        ("agent-job@.timer", "/etc/systemd/system/agent-job@.timer"),
        ("agent.slice", "/etc/systemd/system/agent.slice"),
        ("agent.sysusers.conf", "/etc/sysusers.d/agent.conf"),
        ("agent.tmpfiles.conf", "/etc/tmpfiles.d/agent.conf"),
        ("agent.catalog", "/usr/local/lib/systemd/catalog/agent.catalog"),
        ("privileged.conf", "/opt/a/share/doc/agent/examples/privileged.conf"),
    ],
)
def test_each_file_has_its_place(name: str, place: str) -> None:
    assert destination(name, "/opt/a") == place


def test_units_that_cannot_be_read_are_a_failure_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="the units that belong to agentctl cannot be read"):
        units(tmp_path / "missing", "/srv")
    (tmp_path / "agent.service").write_bytes(b"\xff")
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        units(tmp_path, "/srv")


def test_directories_are_read_as_tmpfiles_reads_them() -> None:
    assert claims(
        "# d /no 0755\n\nd /srv  0755 root root -\nD! /srv/tmp ~0700 agent - 10d\nx /srv/tmp\nd /a%b\nd /plain\n"
    ) == [
        Claim("/srv", 0o755, "root", "root"),
        Claim("/srv/tmp", 0o700, "agent", ""),
        Claim("/plain", 0, "", ""),
    ]


def test_accounts_are_read_as_sysusers_reads_them() -> None:
    text = '# u no\nu agent - "An agent" /srv\nu! locked 5:6\ng ops -\nm agent ops\n'
    assert accounts(text) == Accounts(("agent", "locked"), ("agent", "locked", "ops"))


@pytest.mark.parametrize("prefix", ["/srv", "/opt/agent"])
def test_the_shipped_units_are_right_for_any_prefix(tmp_path: Path, prefix: str) -> None:
    """systemd itself reads them, in a system of their own where the program exists."""
    found = units(SHIPPED, prefix)
    assert {Path(unit.path).name for unit in found} >= {"agent.service", "agent.socket", "agent.conf"}
    program = tmp_path / f".{prefix}/lib/agent/current/agentctl"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in found:
        target = tmp_path / f".{unit.path}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(unit.text)
        if prefix != "/srv":
            assert "/srv" not in unit.text, f"{unit.path} still speaks of /srv"
    names = [Path(unit.path).name for unit in found if unit.path.endswith((".service", ".socket", ".slice", ".timer"))]
    done = subprocess.run(
        ["systemd-analyze", f"--root={tmp_path}", "verify", "--man=no", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = [line for line in done.stderr.splitlines() if "agent" in line and "not found" not in line]
    assert not wrong, done.stderr
