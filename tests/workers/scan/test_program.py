"""Which nmap is run, and which of its scripts may be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ScanFailure
from agent.workers.scan.program import REFUSED, choose_scripts, find_nmap

DATA = find_nmap().data


def test_the_hosts_nmap_is_found_and_told_what_it_may_do(tmp_path: Path) -> None:
    program = find_nmap({"PATH": "/usr/bin", "NMAP_PRIVILEGED": "no", "AGENT_MARK": "m"})
    assert program.path == "/usr/bin/nmap"
    assert program.privileged
    assert program.environment["NMAPDIR"] == str(program.data) == "/usr/share/nmap"
    assert (program.environment["NMAP_PRIVILEGED"], program.environment["AGENT_MARK"]) == ("1", "m")
    with pytest.raises(ScanFailure, match="nmap is not installed: apt-get install nmap"):
        find_nmap({"PATH": str(tmp_path)})


def test_a_script_is_the_file_of_the_package() -> None:
    (chosen,) = choose_scripts(["ssl-cert", "ssl-cert"], DATA)
    assert chosen.path == "/usr/share/nmap/scripts/ssl-cert.nse"
    assert chosen.sha256 == hashlib.sha256(Path(chosen.path).read_bytes()).hexdigest()
    assert choose_scripts([], None) == ()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("http-brute", "http-brute is not run: nmap says that it is brute and intrusive"),
        ("vulners", "is external"),
        ("smb-vuln-ms08-067", "is dos and exploit and intrusive"),
        ("vuln", "is no script of nmap's"),
        ("all", "is no script"),
        ("../scripts/ssl-cert", "is no script"),
        ("ssl-cert.nse", "is no script"),
        ("ssl-cert,vuln", "is no script"),
        ("ssl-*", "is no script"),
    ],
)
def test_what_tries_passwords_or_tells_others_or_is_no_name_is_refused(name: str, match: str) -> None:
    with pytest.raises(ScanFailure, match=match):
        choose_scripts(["banner", name], DATA)


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=40) | st.sampled_from(["--script", "-oN", "default or safe", "not intrusive", "ssl-cert\n"]))
def test_no_text_chooses_more_than_a_script_of_its_name(text: str) -> None:
    try:
        (chosen,) = choose_scripts([text], DATA)
    except ScanFailure as error:
        assert "\n" not in str(error)
    else:
        assert Path(chosen.path) == Path("/usr/share/nmap/scripts", f"{text}.nse")


def test_a_script_that_others_can_change_is_not_run(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    database = scripts / "script.db"
    database.write_text(
        'Entry { filename = "mine.nse", categories = { "safe", } }\n'
        'Entry { filename = "link.nse", categories = { "safe", } }\n'
        'Entry { filename = "gone.nse", categories = { "safe", } }\n'
        'Entry { filename = "odd.nse", categories = { "discovery", } }\n'
    )
    mine = scripts / "mine.nse"
    mine.write_text("-- Lua")
    (scripts / "link.nse").symlink_to(mine)
    assert [script.name for script in choose_scripts(["mine"], tmp_path)] == ["mine"]
    for name, match in (("link", "cannot be read"), ("gone", "cannot be read"), ("odd", "is not safe")):
        with pytest.raises(ScanFailure, match=match):
            choose_scripts([name], tmp_path)
    mine.chmod(0o666)
    with pytest.raises(ScanFailure, match="others than root can write to it"):
        choose_scripts(["mine"], tmp_path)
    mine.chmod(0o644)
    database.chmod(0o622)
    with pytest.raises(ScanFailure, match=r"script\.db is not run: others"):
        choose_scripts(["mine"], tmp_path)
    with pytest.raises(ScanFailure, match="directory of scripts was not found"):
        choose_scripts(["mine"], None)


def test_every_script_of_this_nmap_has_categories_and_none_that_is_refused_is_chosen() -> None:
    assert DATA is not None
    names = sorted(path.stem for path in (DATA / "scripts").glob("*.nse"))
    chosen = set()
    for name in names:
        try:
            choose_scripts([name], DATA)
        except ScanFailure as error:
            assert "nmap says that it is" in str(error), error  # and not that it is none
        else:
            chosen.add(name)
    assert {"banner", "ssl-cert", "http-title"} <= chosen
    assert len(chosen) < len(names)
    assert "brute" in REFUSED
