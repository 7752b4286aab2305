from __future__ import annotations

import msgspec

from agent.control.api import ErrorBody, ErrorReply, Gap, Mistake, Pong, Timers
from agent.supervisor.report import TimerReport


def wire(value: msgspec.Struct) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))


def test_a_gap_is_told_from_an_event_or_a_line_by_its_key() -> None:
    assert wire(Gap(cursor=7, message="gone")) == {"gap": True, "cursor": 7, "message": "gone"}


def test_an_error_names_problems_only_when_it_has_some() -> None:
    assert wire(ErrorReply(error=ErrorBody(status=404, message="no"))) == {"error": {"status": 404, "message": "no"}}
    mistake = Mistake(file="env.toml", line=3, where="service.api", text="what is wrong")
    assert wire(ErrorReply(error=ErrorBody(status=422, message="no", problems=[mistake]))) == {
        "error": {
            "status": 422,
            "message": "no",
            "problems": [{"file": "env.toml", "line": 3, "where": "service.api", "text": "what is wrong"}],
        }
    }


def test_timers_come_in_an_object_and_a_pong_says_which_process_answered() -> None:
    document = wire(Timers(timers=[TimerReport(name="backup", schedule="daily", next_run=None)]))
    assert document == {
        "timers": [
            {
                "name": "backup",
                "schedule": "daily",
                "next_run": None,
                "last_run": None,
                "last_exit": None,
                "state": "waiting",
                "scheduler": "agent",
                "enabled": True,
            }
        ],
        "out_of_sync": [],
    }
    assert wire(Pong(pid=1)) == {"pid": 1, "ok": True}
