"""What is known of a host: whether it was met at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.workers.scan.found import ANSWERED, STATES, UNTOLD, Host, Port, Rest, answered

ALL = ((1, 65535),)


@pytest.mark.parametrize(
    ("host", "there"),
    [
        (Host("10.0.0.1", "down", "no-response"), False),
        (Host("10.0.0.1", "up", "user-set", rest=(Rest("tcp", "filtered", "no-response", ALL),)), False),
        (Host("10.0.0.1", "up", "user-set", rest=(Rest("tcp", "closed", "reset", ALL),)), True),
        (Host("10.0.0.1", "up", "user-set", ports=(Port("tcp", 22, "open", "syn-ack"),)), True),
        (Host("10.0.0.1", "up", "no-response"), False),
        (Host("10.0.0.1", "up", "no-response", ports=(Port("tcp", 22, "open", "syn-ack"),)), True),
        (Host("10.0.0.1", "up", "arp-response"), True),
        (Host("10.0.0.1", "up", ""), False),
    ],
)
def test_a_host_is_there_when_something_answered(host: Host, there: bool) -> None:
    assert answered(host) is there


@pytest.mark.parametrize("state", STATES)
def test_of_one_that_is_taken_to_be_up_its_ports_say_whether_it_is_there(state: str) -> None:
    assumed = Host("10.0.0.1", "up", "user-set", ports=(Port("tcp", 22, state, ""),))
    assert answered(assumed) is (state in ANSWERED)
    assert not answered(replace(assumed, state="down"))


def test_what_is_untold_is_a_state_and_no_answer() -> None:
    assert UNTOLD in STATES
    assert UNTOLD not in ANSWERED
