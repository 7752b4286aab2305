"""Machine-readable output: what ``--json`` prints.

One document is printed with an indent of two; a stream is newline-delimited JSON, one object a line, flushed line by
line so that a reader at the other end of a pipe sees each as it happens.
"""

from __future__ import annotations

from typing import Any


def document(value: Any) -> None:
    """Print one JSON document on stdout."""
    import json

    print(_inert(json.dumps(value, indent=2)))


def line(value: Any) -> None:
    """Print one object of a stream on stdout, at once."""
    import json

    print(_inert(json.dumps(value, separators=(",", ":"))), flush=True)


def _inert(text: str) -> str:
    """JSON as ASCII escapes every control character but DEL."""
    return text.replace("\x7f", "\\u007f")
