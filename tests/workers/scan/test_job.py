"""What a scan of profile ``full`` is to find out beside services, and that it does: operating systems and scripts."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.cli.main import main
from agent.declaration.model import Scan, Scanning
from agent.workers.scan.job import settle_job
from agent.workers.scan.memory.reading import Memory
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench
from tests.workers.scan.changing import Servers, World
from tests.workers.scan.conftest import Story

pytestmark = pytest.mark.timeout(180)  # the first to be run waits for all that ``told`` tells

PLENTY = Scanning(rate=1_000_000, network_rate=1_000_000, target_rate=1_000_000)
HOST, OTHER = "10.99.0.120", "10.99.0.121"
WORLD = World({HOST: {22: "ssh"}, OTHER: {22: "ssh"}})


class Full(NamedTuple):
    """A prefix whose scan ``lan`` has run twice, with other host keys the second time; ``keys`` are both."""

    prefix: Path
    keys: tuple[str, str]


def scanned(net: lab.Network, tmp_path_factory: pytest.TempPathFactory) -> Full:
    bench = Bench(tmp_path_factory.mktemp("full"))
    service = Scan(
        name="lan",
        targets=(HOST, OTHER),
        ports="22,9999",
        profile="full",
        scripts=("ssh-hostkey", "banner"),
        rate=20_000,
        retries=2,
        budget=PLENTY,
    )
    prefix = tmp_path_factory.mktemp("prefix")
    (prefix / "key").mkdir()
    (prefix / "key" / "env.toml").write_text(
        f'[service.lan]\nkind = "scan"\ntargets = ["{HOST}", "{OTHER}"]\nports = "22,9999"\n'
    )
    (prefix / "spool").mkdir()
    (prefix / "spool" / "lan").symlink_to(bench.data)
    keys = []
    try:
        for _ in range(2):
            place = tmp_path_factory.mktemp("servers")
            with Servers(net, place).up(WORLD):
                ended = bench.run(service, prefix=tuple(net.inside()))
            assert ended.code == 0, ended.stderr
            said = lab.run("ssh-keygen", "-l", "-E", "md5", "-f", str(place / "host_key.pub"))
            keys.append(said.split()[1].removeprefix("MD5:").replace(":", ""))
        return Full(prefix, (keys[0], keys[1]))
    finally:
        bench.close()


STORIES = (scanned,)


@pytest.fixture(scope="module")
def full(told: Mapping[Story, Future[Any]]) -> Full:
    found: Full = told[scanned].result()
    return found


def said(full: Full, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["--prefix", str(full.prefix), "scan", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_system_it_is_and_what_scripts_said_is_shown(full: Full, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(full, capsys, "show", "lan", "1")
    assert shown["profile"] == "full"
    assert [host["address"] for host in shown["hosts"]] == [HOST, OTHER]
    for host in shown["hosts"]:
        assert any("Linux" in guess for guess in host["os"])
        [port] = host["ports"]
        assert (port["number"], port["product"]) == (22, "OpenSSH")
        assert full.keys[0] in port["scripts"]["ssh-hostkey"]
        assert port["scripts"]["banner"].startswith("SSH-2.0-OpenSSH_")
        assert set(port["scripts"]) == {"ssh-hostkey", "banner"}


def test_people_see_it_too(full: Full, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prefix", str(full.prefix), "scan", "show", "lan", "1"]) == 0
    shown = capsys.readouterr().out
    assert "system: Linux" in shown
    assert f"ssh-hostkey: 256 {full.keys[0]} (ED25519)\n" in shown
    assert "banner: SSH-2.0-OpenSSH_" in shown


def test_exports_have_it(full: Full, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("xml", "csv"):
        assert main(["--prefix", str(full.prefix), "scan", "export", kind, "lan", "1", "-o", str(tmp_path / kind)]) == 0
    capsys.readouterr()
    xml = (tmp_path / "xml").read_text()
    assert xml.count("<osmatch ") >= 2
    assert xml.count('<script id="ssh-hostkey"') == 2
    assert full.keys[0] in xml
    with (tmp_path / "csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["port"] == "22"]
    assert len(rows) == 2
    assert all("Linux" in row["os"] for row in rows)


def test_another_host_key_is_a_difference_and_nothing_else_is(full: Full, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(full, capsys, "diff", "lan", "1", "2")
    changes = [(one["kind"], one["address"], one["script"]) for one in found["changes"] if one["kind"] != "os_changed"]
    assert changes == [("script_changed", HOST, "ssh-hostkey"), ("script_changed", OTHER, "ssh-hostkey")]
    for change in found["changes"]:
        if change["kind"] == "script_changed":
            assert full.keys[0] in change["before"]
            assert full.keys[1] in change["after"]
    assert found["notes"] == []


def test_what_is_so_now_knows_the_system(full: Full) -> None:
    with Memory(full.prefix / "spool" / "lan" / "scan.db") as memory:
        assert all(any("Linux" in guess for guess in host.os) for host in memory.now())


def test_a_run_that_ran_other_scripts_is_not_gone_on_with() -> None:
    """Half of its hosts would have been asked by the one, and half by the other."""

    def hash_of(*scripts: str) -> str:
        service = Scan(
            name="lan", targets=("127.0.0.1",), ports="22", profile="full", scripts=scripts, engine="connect"
        )
        return asyncio.run(settle_job(service, lambda line: None)).plan.plan_hash

    assert len({hash_of(), hash_of("banner"), hash_of("ssh-hostkey"), hash_of("banner", "ssh-hostkey")}) == 4
    assert hash_of("ssh-hostkey", "banner") == hash_of("banner", "ssh-hostkey")


def test_a_run_that_could_see_more_or_less_is_not_gone_on_with() -> None:
    """Who is asked by ping in the one half and by connecting in the other would be silent in one way or the other."""
    program = (
        "import asyncio; from agent.declaration.model import Scan; from agent.workers.scan.job import settle_job;"
        "service = Scan(name='lan', targets=('127.0.0.1',), ports='22', engine='connect');"
        "print(asyncio.run(settle_job(service, lambda line: None)).plan.plan_hash)"
    )
    told = [
        subprocess.run([*prefix, sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        for prefix in ((), ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"))
    ]
    assert told[0] != told[1]
