"""What a child is started with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.model import AgentSettings, Capture, Command, Heartbeat, Scan
from agent.linux.spawn import own_program
from agent.linux.sweep import MARK
from agent.paths import Paths
from agent.supervisor.launch import launch

PATHS = Paths(Path("/srv"), Path("/srv/key/env.toml"))
SETTINGS = AgentSettings("hel1v5")
GIVEN = {"CREDENTIALS_DIRECTORY": "/run/credentials/agent.service", "JOURNAL_STREAM": "8:1"}


def test_the_contract_is_in_the_environment_of_every_child() -> None:
    service = Command(name="api", command=("/srv/app/api", "--port", "80 80"), secrets=("db_password",))
    found = launch(service, SETTINGS, PATHS, "mark", "/srv/run/api.notify", {"PATH": "/bin"})
    assert found.argv == ("/srv/app/api", "--port", "80 80")
    assert not found.own_program
    assert found.environment == {
        "PATH": "/bin",
        "SERVICE_NAME": "api",
        "SERVICE_CONFIG": "/srv/run/api.json",
        "SERVICE_SERVER": "hel1v5",
        "SERVICE_FLAVOR": "command",
        "SERVICE_IMAGE": "/srv/app/api",
        "SERVICE_ARGS": "--port '80 80'",
        "SERVICE_DATA": "/srv/spool/api",
        "NOTIFY_SOCKET": "/srv/run/api.notify",
        "DB_PASSWORD_FILE": "/srv/key/secrets/db_password",
        MARK: "mark",
    }


def test_a_heartbeat_is_promised_by_file_and_by_the_watchdogs_variable() -> None:
    service = Command(name="api", command=("/bin/api",), heartbeat=Heartbeat(interval=1.0, timeout=2.5))
    environment = launch(service, SETTINGS, PATHS, "m", "/srv/run/api.notify", {}).environment
    assert environment["SERVICE_HEARTBEAT_FILE"] == "/srv/tmp/api.heartbeat"
    assert environment["WATCHDOG_USEC"] == "2500000"


def test_a_service_with_a_user_of_its_own_gets_copies_of_its_secrets() -> None:
    service = Command(name="api", command=("/bin/api",), user="api", secrets=("key",))
    environment = launch(service, SETTINGS, PATHS, "m", "/srv/run/api.notify", {}).environment
    assert environment["KEY_FILE"] == "/srv/run/api.secrets/key"


def test_a_secret_that_is_a_credential_is_read_where_systemd_has_laid_it(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    given = PATHS._replace(credentials=tmp_path)
    service = Command(name="api", command=("/bin/api",), secrets=("key", "other"))
    environment = launch(service, SETTINGS, given, "m", "/srv/run/api.notify", {}).environment
    assert environment["KEY_FILE"] == str(tmp_path / "key")
    assert environment["OTHER_FILE"] == "/srv/key/secrets/other"
    copied = launch(
        Command(name="api", command=("/bin/api",), user="api", secrets=("key",)), SETTINGS, given, "m", "n", {}
    )
    assert copied.environment["KEY_FILE"] == "/srv/run/api.secrets/key"


def test_workers_of_our_own_are_this_very_program() -> None:
    found = launch(Capture(name="edge", interfaces=("lo",)), SETTINGS, PATHS, "m", "/srv/run/api.notify", {})
    assert list(found.argv) == [*own_program(), "worker", "capture"]
    assert found.own_program


@pytest.mark.parametrize("declared", [None, (), ("CAP_NET_BIND_SERVICE",)])
def test_a_command_gets_the_capabilities_that_it_declares(declared: tuple[str, ...] | None) -> None:
    service = Command(name="api", command=("/bin/api",), capabilities=declared)
    assert launch(service, SETTINGS, PATHS, "m", "/srv/run/api.notify", {}).capabilities == declared


@pytest.mark.parametrize("service", [Capture(name="x", interfaces=("lo",)), Scan(name="x", targets=("10.0.0.1",))])
def test_captures_and_scans_get_raw_sockets_and_no_more(service: Capture | Scan) -> None:
    assert launch(service, SETTINGS, PATHS, "m", "/srv/run/x.notify", {}).capabilities == ("CAP_NET_RAW",)


BUNDLE = {"LD_LIBRARY_PATH": "/bundle/lib", "LD_LIBRARY_PATH_ORIG": "/opt/lib", "_PYI_ARCHIVE_FILE": "/bundle/agent"}


@pytest.mark.parametrize(("declared", "found"), [({}, None), ({"LD_LIBRARY_PATH": "/mine"}, "/mine")])
def test_a_command_gets_its_own_library_path_and_never_the_bundles(
    monkeypatch: pytest.MonkeyPatch, declared: dict[str, str], found: str | None
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    service = Command(name="api", command=("/bin/api",), environment=declared)
    environment = launch(service, SETTINGS, PATHS, "m", "/srv/run/api.notify", BUNDLE).environment
    assert environment.get("LD_LIBRARY_PATH") == found
    assert not {"LD_LIBRARY_PATH_ORIG", "_PYI_ARCHIVE_FILE"} & environment.keys()


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,12}", fullmatch=True), st.text()))
def test_nothing_of_the_agents_environment_gets_through_but_what_is_on_the_list(environ: dict[str, str]) -> None:
    noise = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1", "AWS_TOKEN": "x", **GIVEN}
    environment = launch(
        Command(name="api", command=("/bin/api",)), SETTINGS, PATHS, "m", "/srv/run/api.notify", {**environ, **noise}
    ).environment
    assert environment["NOTIFY_SOCKET"] == "/srv/run/api.notify"
    assert not {"WATCHDOG_USEC", "LISTEN_FDS", "AWS_TOKEN", *GIVEN} & environment.keys()


def test_a_declared_environment_cannot_change_the_contract() -> None:
    service = Command(name="api", command=("/bin/api",), environment={"SERVICE_NAME": "root", "COLOUR": "green"})
    environment = launch(service, SETTINGS, PATHS, "m", "/srv/run/api.notify", {}).environment
    assert (environment["SERVICE_NAME"], environment["COLOUR"]) == ("api", "green")
