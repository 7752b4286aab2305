"""libpcap as it is found on this host, and when there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

_WITHOUT_LIBPCAP = """
from agent.linux import libpcap
libpcap.NAMES = ()
from agent.workers.main import main
raise SystemExit(main("capture"))
"""


def test_without_libpcap_it_says_which_package_to_install(tmp_path: Path) -> None:
    config = tmp_path / "service.json"
    config.write_text(json.dumps({"kind": "capture", "name": "edge", "interfaces": ["lo"]}))
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_LIBPCAP],
        env={"PYTHONPATH": str(ROOT), "SERVICE_CONFIG": str(config), "SERVICE_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2
    assert done.stderr == "libpcap is not installed: on Debian and Ubuntu, `apt install libpcap0.8`\n"
