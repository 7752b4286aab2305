"""Another prefix than /srv is as good: whatever names a path in a unit, a sandbox, a tmpfiles.d or an answer is moved.

What depends most on that is tested as it is below /srv: the imported tests, whose machines have the agent where this
module says.
"""

from __future__ import annotations

import json

import pytest

from tests.system.host import UNIT, Host
from tests.system.test_handover import (  # noqa: F401  # pytest collects them from here too
    activated,
    test_nobody_is_refused_while_the_agent_restarts,
    test_who_asks_first_starts_the_agent_and_gets_an_answer,
)
from tests.system.test_service import (  # noqa: F401  # pytest collects them from here too
    test_cleaning_of_temporary_files_does_not_touch_what_runs,
    test_reload_fails_on_a_wrong_declaration_and_touches_nothing,
    test_reload_returns_when_what_is_declared_is_true_however_long_it_takes,
    test_verify_finds_nothing_to_say_about_the_units,
)
from tests.system.test_timers import (  # noqa: F401  # pytest collects them from here too
    job,
    runs,
    test_a_job_never_overlaps_itself_whoever_starts_it,
    test_a_job_that_somebody_starts_by_hand_has_run_when_systemctl_returns,
    test_how_a_run_ended_is_seen_by_systemctl_the_journal_and_agentctl,
    test_systemd_finds_nothing_wrong_with_what_is_installed,
)


@pytest.fixture
def prefix() -> str:
    """Of every kind of letter that one may have."""
    return "/opt/some-where/Agent_2.0+x"


def test_a_job_is_run_once_by_hand_with_its_data_below_the_prefix(installed: Host) -> None:
    installed.declare(job("good", 'oncalendar = "yearly"') + job("bad", 'oncalendar = "yearly"', "exit 7"))
    done = installed.agentctl("run-once", "good", "--json")
    assert json.loads(done.stdout) | {"seconds": 0} == {
        "name": "good", "exit_code": 0, "message": "exited 0", "seconds": 0
    }  # fmt: skip
    assert len(runs(installed, "good")) == 1
    assert installed.agentctl("run-once", "bad", check=False).returncode == 2
    assert not list(installed.path("/srv").iterdir())
    installed.systemctl("start")
    assert f"prefix {installed.prefix}\n" in installed.agentctl("status").stdout
    installed.agentctl("start", "good")
    installed.until("good", state="waiting", last_exit="exited 0")
    assert len(runs(installed, "good")) == 2
    assert installed.show(UNIT, "NRestarts") == {"NRestarts": "0"}
