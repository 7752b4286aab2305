"""What a companion tells its worker."""

from __future__ import annotations

import os

from agent.workers.channel import VARIABLE, Receiver, Sender


def test_messages_arrive_whole_and_in_order_and_only_while_there_are_any() -> None:
    receiver = Receiver()
    sender = Sender({VARIABLE: str(os.dup(receiver.theirs))})
    assert sender.notify(STATUS="two\nlines", WATCHDOG="1")
    assert sender.notify(READY="1")
    assert receiver.receive() == [{"STATUS": "two lines", "WATCHDOG": "1"}, {"READY": "1"}]
    assert receiver.receive() == []
    sender.close()
    receiver.close()
    receiver.close()


def test_nobody_waits_for_a_worker_that_does_not_listen_or_is_gone() -> None:
    receiver = Receiver()
    sender = Sender({VARIABLE: str(os.dup(receiver.theirs))})
    sent = 0
    while sender.notify(STATUS="x" * 1000):
        sent += 1
        assert sent < 100_000
    assert sent
    receiver.close()
    assert not sender.notify(STATUS="gone")
    sender.close()


def test_the_variable_is_taken_so_that_no_child_inherits_it() -> None:
    receiver = Receiver()
    environment = {VARIABLE: str(os.dup(receiver.theirs)), "PATH": "/bin"}
    Sender(environment).close()
    assert environment == {"PATH": "/bin"}
    receiver.close()
