"""The proof of capturing holds where capturing works, and fails where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import CaptureFailure
from agent.workers.capture import proof


def test_libpcap_writes_and_filters_without_an_interface() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    assert proof.offline().startswith("libpcap version ")
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_filter_that_lets_others_pass_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "FILTER", "udp")
    with pytest.raises(CaptureFailure, match="5 of 5 packets of a savefile passed 'udp', not 3"):
        proof.offline()


def test_a_filter_that_does_not_compile_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "FILTER", "udp dst")
    with pytest.raises(CaptureFailure, match="libpcap cannot compile 'udp dst'"):
        proof.offline()


def test_what_is_sent_on_loopback_is_captured_there() -> None:
    proof.live()


def test_what_is_not_captured_in_time_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "WAIT", 0.3)
    monkeypatch.setattr(proof, "_port", lambda bound: bound.getsockname()[1] ^ 1)
    with pytest.raises(CaptureFailure, match="lo: 0 of 3 packets"):
        proof.live()
