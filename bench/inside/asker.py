"""Asks the agent whether it is there, over and over until its stdin ends, and tells the longest wait in seconds.

``asker SOCKET``; it says ``begun`` after the first answer. Every question is a connection of its own, as agentctl's is.
"""

from __future__ import annotations

import select
import socket
import sys
import time

QUESTION = b"GET /v1/ping HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
PAUSE = 0.005


def ask(path: str) -> float:
    """How long one answer takes. Raises ``SystemExit`` when it is not the expected one."""
    begun = time.monotonic()
    answer = b""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        asking.sendall(QUESTION)
        while data := asking.recv(65536):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"asked for a ping: {answer!r}")
    return time.monotonic() - begun


def main() -> None:
    longest = ask(sys.argv[1])
    print("begun", flush=True)
    while not select.select([0], [], [], PAUSE)[0]:
        longest = max(longest, ask(sys.argv[1]))
    print(longest)


if __name__ == "__main__":
    main()
