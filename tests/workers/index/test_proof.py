"""The proof of the index holds here, and fails where an index is not what it should be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.errors import StorageFailure
from agent.workers.index import form, proof
from agent.workers.index.model import Chunk


def test_packets_are_found_again(tmp_path: Path) -> None:
    assert proof.found_again(tmp_path) == (
        f"numpy {np.__version__}: {proof.PACKETS} packets indexed, and those of a host and port found again"
    )
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".idx", ".pcap"]


def test_an_index_that_leads_to_others_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = form.decode

    def turned(data: bytes) -> Iterator[Chunk]:
        return (dataclasses.replace(chunk, offsets=np.roll(chunk.offsets, 100)) for chunk in decode(data))

    monkeypatch.setattr(form, "decode", turned)
    with pytest.raises(StorageFailure, match="packets of others"):
        proof.found_again(tmp_path)


def test_an_index_that_lacks_flows_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "decode", lambda data: iter(()))
    with pytest.raises(StorageFailure, match="found 0 of one host and port, not 20"):
        proof.found_again(tmp_path)


def test_a_directory_that_takes_no_index_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(chunk: Chunk) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(form, "encode", full)
    with pytest.raises(StorageFailure, match="No space left on device"):
        proof.found_again(tmp_path)
