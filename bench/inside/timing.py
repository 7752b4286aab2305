"""How long whole programs take, from being started to having ended, with a plain pipe as their stdout.

stdin: ``{"rounds": N, "programs": {NAME: ARGV}}``. Each round takes the programs in random order, with random pauses.
stdout: ``{NAME: [[SECONDS, PROCESSOR SECONDS], …]}``, the second with its children that it waited for.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time


def timed(argv: list[str]) -> tuple[float, float]:
    """One start to end. Raises ``SystemExit`` with what it said, unless it exits 0."""
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writing, 1),
        (os.POSIX_SPAWN_DUP2, writing, 2),
    ]
    begun = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    os.close(writing)
    said = b""
    while data := os.read(reading, 65536):
        said += data
    _, status, usage = os.wait4(pid, 0)
    took = time.monotonic() - begun
    os.close(reading)
    if status:
        sys.exit(f"{' '.join(argv)} ended with {status}: {said.decode(errors='replace')}")
    return took, usage.ru_utime + usage.ru_stime


def main() -> None:
    asked = json.load(sys.stdin)
    programs = asked["programs"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(asked["rounds"]):
        for name in random.sample(list(programs), len(programs)):
            time.sleep(random.uniform(0, 0.05))
            found[name].append(timed(programs[name]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
