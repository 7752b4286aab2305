"""The same program and the same units under a newer systemd, which knows more and may think differently.

What depends most on what systemd does is tested here as it is under the oldest one: the imported tests, whose machines
have the release that this module says.
"""

from __future__ import annotations

import json

import pytest

from tests.binary import built
from tests.system.host import UNIT, Host
from tests.system.root import NEWER
from tests.system.test_credentials import (  # noqa: F401  # pytest collects them from here too
    test_a_declaration_of_roots_alone_is_read_as_a_credential,
    test_a_secret_that_systemd_hands_over_is_read_by_the_worker_and_by_nobody_else,
)
from tests.system.test_handover import (  # noqa: F401  # pytest collects them from here too
    activated,
    test_an_agent_that_dies_in_the_middle_is_started_anew_and_finds_what_systemd_kept,
    test_an_agent_that_dies_on_its_way_out_is_started_anew_as_the_next_version,
    test_nobody_is_refused_while_the_agent_restarts,
)
from tests.system.test_journal import (  # noqa: F401  # pytest collects them from here too
    test_what_a_service_does_and_says_is_found_by_its_name_and_by_how_urgent_it_is,
)
from tests.system.test_sandbox import (  # noqa: F401  # pytest collects them from here too
    prober,
    test_a_service_can_do_nothing_that_is_not_its_business,
    test_captures_see_every_packet_in_promiscuous_mode_without_cap_net_admin,
    test_no_process_of_the_agent_can_gain_privileges_or_leave_its_filter,
    test_scans_send_raw_syn_packets,
    test_the_privileged_drop_in_opens_little_more_to_services,
    test_the_privileged_drop_in_runs_services_as_other_users,
    test_the_shipped_files_score_two_or_less_without_a_systemd_to_ask,
    with_another_user,
)
from tests.system.test_service import (  # noqa: F401  # pytest collects them from here too
    test_a_hung_worker_is_replaced,
    test_a_reboot_comes_back_to_the_same_state,
    test_a_stop_sends_a_service_its_own_stop_signal_and_no_other,
    test_cleaning_of_temporary_files_does_not_touch_what_runs,
    test_only_the_agent_itself_can_say_that_it_is_ready,
    test_reload_fails_on_a_wrong_declaration_and_touches_nothing,
    test_sigkill_of_the_agent_leaves_no_process_and_it_comes_back,
    test_sigstop_of_the_agent_is_seen_by_the_watchdog_which_restarts_it,
    test_verify_finds_nothing_to_say_about_the_units,
)
from tests.system.test_timers import (  # noqa: F401  # pytest collects them from here too
    test_a_reboot_comes_back_to_the_same_timers_and_makes_up_for_what_was_missed,
    test_a_time_that_was_missed_is_made_up_for_only_if_that_is_declared,
    test_systemd_finds_nothing_wrong_with_what_is_installed,
)
from tests.system.test_uninstall import (  # noqa: F401  # pytest collects them from here too
    bare,
    test_uninstall_leaves_nothing_of_what_was_installed_and_ran,
)

DECLARED = """
[agent]
scheduler = "systemd"

[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]

[service.cable]
kind = "capture"
interfaces = ["near"]

[service.tick]
kind = "command"
command = ["/bin/true"]
oncalendar = "*:*:0/2"
"""


@pytest.fixture
def suite() -> str:
    """Debian 13."""
    return NEWER


@pytest.fixture
def newer(installed: Host) -> Host:
    """With a service of each kind."""
    installed.veth("near", "far")
    installed.declare(DECLARED)
    return installed


def test_it_is_installed_starts_upgrades_runs_jobs_and_is_taken_back(newer: Host) -> None:
    assert int(newer.run(["systemctl", "--version"]).stdout.split()[1]) > 252
    newer.run(["systemctl", "enable", "--now", "--quiet", "agent.socket", UNIT])
    status = newer.status()
    assert [service["state"] for service in status["services"]] == ["running", "waiting", "running"]
    assert status["agent"]["containment"] == "cgroup"
    newer.agentctl("timers", "sync")
    newer.wait_journal(lambda line: "Finished agent-job@tick.service" in line, "-u", "agent-job@tick.service")
    process, workers = newer.pid, {one["name"]: one["pid"] for one in newer.status()["services"]}
    newer.copy_in(built("0.1.1").onefile, "/root/next")
    report = json.loads(newer.agentctl("upgrade", "/root/next", "--json").stdout)
    assert (report["state"], report["after"]) == ("done", "0.1.1")
    assert newer.pid == process
    assert {one["name"]: one["pid"] for one in newer.status()["services"]} == workers
    newer.declare(DECLARED + "colour = 3\n")
    assert newer.systemctl("reload", check=False).returncode == 1
    newer.declare(DECLARED)
    newer.systemctl("reload")
    newer.systemctl("restart")
    assert newer.status()["agent"]["state"] == "running"
    newer.agentctl("uninstall", "--purge")
    assert not newer.path("/srv/lib/agent").exists()


def test_it_finds_nothing_to_complain_of_in_the_units(newer: Host) -> None:
    newer.systemctl("start")
    verified = newer.run(
        [
            "systemd-analyze",
            "verify",
            "--man=no",
            *(f"/etc/systemd/system/{name}" for name in (UNIT, "agent.socket", "agent.slice")),
        ],
        check=False,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    said = newer.journal("-u", UNIT, "-p", "warning", "_PID=1")
    assert said == "", "what systemd itself warns of"
