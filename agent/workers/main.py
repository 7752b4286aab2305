"""The entry of a worker process: ``worker KIND`` on the command line ends here.

Each kind is imported only when it is asked for, so that a capture worker never pays for nmap's parser, nor a scan
worker for libpcap.
"""

from __future__ import annotations

import sys
from importlib import import_module

from agent.errors import EXIT_CONFIGURATION
from agent.linux.capabilities import withhold
from agent.workers.runtime import run_worker

#: kind -> the class that is made with a ``Context`` and keeps the ``Worker`` protocol, as ``module:name``.
WORKERS = {
    "capture": "agent.workers.capture.worker:CaptureWorker",
    "member": "agent.workers.capture.member:MemberWorker",
    "index": "agent.workers.index.worker:IndexWorker",
    "scan": "agent.workers.scan.worker:ScanWorker",
    "watch": "agent.workers.watch.worker:WatchWorker",
}


def main(kind: str) -> int:
    """Run the worker of ``kind`` until it is done or told to stop; returns the exit code of the contract (0, 1, 2)."""
    place = WORKERS.get(kind)
    if place is None:
        print(f"worker {kind}: no such kind; one of {', '.join(sorted(WORKERS))}", file=sys.stderr)
        return EXIT_CONFIGURATION
    withhold()  # what it may do, it does itself, or hands on by name
    module, _, name = place.partition(":")
    return run_worker(lambda context: getattr(import_module(module), name)(context))
