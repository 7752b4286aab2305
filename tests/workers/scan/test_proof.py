"""The proof of reading nmap's answers holds, and fails where they are read differently."""

from __future__ import annotations

import pytest

from agent.errors import ScanFailure
from agent.workers.scan import proof


def test_an_answer_is_understood() -> None:
    assert proof.understood() == "1 host, 2 open ports read from nmap's XML"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (proof.ANSWER.replace(b'portid="443"', b'portid="444"'), r"open ports \[22, 443\] was read as \[22, 444\]"),
        (proof.ANSWER.replace(b'"ssh"', b'"ftp"'), "was read as"),
        (proof.ANSWER[:-20], "stops before its end"),
        (proof.ANSWER.replace(proof.ADDRESS.encode(), b"192.0.2.8"), "which was not asked for"),
    ],
    ids=["another port", "another service", "cut off", "another host"],
)
def test_an_answer_that_is_read_as_another_is_a_failure(
    answer: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "ANSWER", answer)
    with pytest.raises(ScanFailure, match=reason):
        proof.understood()
