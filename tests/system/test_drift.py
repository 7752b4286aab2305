"""Drift on an installed host: the watch in the sandbox knows whose a socket is, and root knows the process too."""

from __future__ import annotations

import json

from tests.harness import wait_until
from tests.system.host import Host

DECLARED = """
[expect.host]
hosts = ["127.0.0.1"]
closed = ["8000"]
"""


def test_a_socket_of_another_unit_is_told_with_the_unit_and_to_root_with_the_process(installed: Host) -> None:
    installed.run(["systemd-run", "--unit=web", "-p", "User=games", "python3", "-m", "http.server", "8000"])
    wait_until(lambda: installed.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000"], check=False).returncode == 0)
    installed.declare(DECLARED)
    installed.systemctl("start")

    def found() -> list[dict[str, object]]:
        return [event["data"] for event in installed.events() if event["kind"] == "drift_found"]

    wait_until(lambda: bool(found()), lambda: installed.log("watch"))
    (told,) = found()
    games = installed.run(["id", "-u", "games"]).stdout.strip()
    assert told["key"] == "open_forbidden 127.0.0.1 tcp/8000"
    assert told["declared"] == "expect.host: closed"
    assert told["listening"] == f"0.0.0.0:8000: web.service, a process of user {games}"
    (row,) = json.loads(installed.agentctl("drift", "--json").stdout)["rows"]
    (listening,) = (one for one in row["evidence"] if one["source"] == "listening")
    pid = int(installed.show("web.service", "MainPID")["MainPID"])
    assert (listening["pids"], listening["process"], listening["unit"]) == ([pid], "python3", "web.service")
    assert installed.agentctl("drift", "--exit-code", check=False).returncode == 2
    assert f"python3 (PID {pid}), web.service" in installed.agentctl("drift").stdout
