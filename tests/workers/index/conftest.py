"""What tshark and the index say of all samples: asked once."""

from __future__ import annotations

import pytest

from tests.workers.index import lab
from tests.workers.index.kinds import KINDS, SAMPLES
from tests.workers.index.truth import FIELDS, Row, decoded, told


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return decoded(SAMPLES)


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What tshark says, of all samples in one file."""
    path = tmp_path_factory.mktemp("headers") / "all.pcapng"
    path.write_bytes(lab.pcapng([(KINDS[sample.kind].link, sample.packet) for sample in SAMPLES]))
    found = lab.tshark(path, FIELDS)
    assert len(found) == len(SAMPLES)
    return [told(packet) for packet in found]
