"""A declaration that somebody else lays in place, and renews when he likes: nothing old is ever taken for new.

Here the directory stands for systemd's. What a real one does is in tests/system/test_credentials.py.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agent.errors import RequestRefused
from tests.harness import Agent, wait_until

SLEEP = '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "{}"]\n'
WHY = "which systemd renews at a restart only: systemctl restart agent"


class Given:
    """What an agent is given as its credentials."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {"CREDENTIALS_DIRECTORY": str(directory)}
        directory.mkdir(mode=0o700)

    def renew(self, text: str, name: str = "env.toml") -> None:
        """As a newer systemd may do: the file is another one afterwards."""
        (self.directory / f".{name}").write_text(text)
        (self.directory / f".{name}").rename(self.directory / name)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path / "given")


def refusals(agent: Agent) -> list[str]:
    return [event["message"] for event in agent.events() if event["kind"] == "reload_refused"]


def command(agent: Agent) -> str:
    """What the worker was started as."""
    return Path(f"/proc/{agent.service('web')['pid']}/cmdline").read_text().split("\0")[1]


def test_a_reload_takes_a_credential_that_was_renewed_and_refuses_the_one_it_has(agent: Agent, given: Given) -> None:
    given.renew(SLEEP.format(71101))
    agent.start(environ=given.environ)
    assert agent.status()["agent"]["declaration"] == str(given.directory / "env.toml")
    with pytest.raises(RequestRefused, match=WHY) as refusal:
        agent.client.request("POST", "/v1/reload")
    assert (refusal.value.status, refusal.value.exit_code) == (409, 2)
    given.renew(SLEEP.format(71102))
    assert agent.client.request("POST", "/v1/reload")["restarted"] == ["web"]
    assert command(agent) == "71102"
    with pytest.raises(RequestRefused, match=WHY):
        agent.client.request("POST", "/v1/reload")
    assert len(refusals(agent)) == 2


def test_a_signal_is_refused_as_quietly_as_any_reload(agent: Agent, given: Given) -> None:
    given.renew(SLEEP.format(71103))
    agent.start(environ=given.environ)
    pid = agent.service("web")["pid"]
    assert agent.process
    agent.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(refusals(agent)) == 1)
    assert WHY in refusals(agent)[0]
    assert not [event for event in agent.events() if event["kind"] in ("error", "bug")]
    assert (agent.status()["agent"]["state"], agent.service("web")["pid"]) == ("running", pid)


def test_a_file_is_read_where_there_is_one_whatever_is_given(agent: Agent, given: Given) -> None:
    given.renew("nonsense")
    agent.declare(SLEEP.format(71104))
    agent.start(environ=given.environ)
    assert agent.status()["agent"]["declaration"] == str(agent.prefix / "key" / "env.toml")
    agent.declare(SLEEP.format(71105))
    assert agent.client.request("POST", "/v1/reload")["restarted"] == ["web"]
    # What takes its place is older than what is in effect.
    (agent.prefix / "key" / "env.toml").unlink()
    given.renew(SLEEP.format(71106))
    assert agent.client.request("POST", "/v1/reload")["restarted"] == ["web"]
    assert command(agent) == "71106"


def test_mistakes_in_a_credential_are_told_with_its_place(agent: Agent, given: Given) -> None:
    given.renew(SLEEP.format(71107) + "colour = 3\n")
    agent.start(environ=given.environ, wait=False)
    assert agent.process
    assert agent.process.wait(20) == 1
    assert agent.console().startswith(f"{given.directory}/env.toml:4: service.web.colour: unknown key")


def test_a_worker_is_told_of_its_secrets_and_of_nothing_else_that_was_given(agent: Agent, given: Given) -> None:
    given.renew("swordfish", "token")
    (given.directory / "token").chmod(0o440)
    said = "cat $$TOKEN_FILE; echo; env; exec sleep 71108"
    agent.declare(f'[service.web]\nkind = "command"\ncommand = ["/bin/sh", "-c", "{said}"]\nsecrets = ["token"]\n')
    agent.start(environ=given.environ)
    wait_until(lambda: "AGENT_MARK" in agent.log("web"))
    assert " swordfish\n" in agent.log("web")
    assert f" TOKEN_FILE={given.directory}/token\n" in agent.log("web")
    assert "CREDENTIALS_DIRECTORY" not in agent.log("web")
