"""A message to a webhook: posted as JSON, and signed.

It is the host's curl that speaks HTTP and TLS. This program carries no TLS of its own (docs/binary.md): what is current
about ciphers, and whom to trust, is the host's to say, as it is for everything else there. curl is told what to do by a
file in memory, so that neither the URL, which may be a secret, nor a signature is in any list of processes.

The signature is that of Standard Webhooks (standardwebhooks.com): HMAC-SHA256, RFC 2104, over the id of the message,
the time and the body, with points between them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from agent.errors import SpawnFailed
from agent.workers.watch.notify_program import Outcome, run_program

TIMEOUT: Final = 30
"""Seconds that one delivery takes at most, and 10 of them until there is a connection."""

_CONNECT: Final = 10
_PREFIX: Final = b"whsec_"
_CONFIG: Final = 1

REFUSED: Final = frozenset({400, 410, 413, 414, 415, 422})
"""Answers that say that this message, and not just any, is not wanted (RFC 9110, 15.5)."""


def sign(key: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``."""
    content = b".".join([identity.encode(), str(timestamp).encode(), body])
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def key_of(secret: bytes) -> bytes:
    """The key that a secret stands for: what base64 says after ``whsec_``, else all but the white space around it.

    Raises ``ValueError`` when that is nothing, as everybody has an empty key; its text goes on after the secret's name.
    """
    text = secret.strip()
    key = text
    if text.startswith(_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError(f"is no base64 after {_PREFIX.decode()}") from None
    if not key:
        raise ValueError("is empty")
    return key


async def post(
    url: str, identity: str, body: bytes, key: bytes | None, now: float, environment: Mapping[str, str]
) -> Outcome:
    """Deliver ``body`` once, at ``now`` (unix seconds), signed if there is a ``key``.

    Only an answer from 200 to 299 says that it was taken.
    Redirections are not followed, and no proxy is asked: the body would go where nobody has declared.
    """
    headers = {"Content-Type": "application/json", "webhook-id": identity, "webhook-timestamp": str(int(now))}
    if key is not None:
        headers["webhook-signature"] = sign(key, identity, int(now), body)
    try:
        ended = await run_program(
            ["curl", "--disable", "--config", f"{{{_CONFIG}}}"],
            environment,
            body,
            timeout=TIMEOUT + 5,
            files={_CONFIG: configuration(url, headers).encode("ascii")},
        )
    except SpawnFailed as error:
        return Outcome(False, f"{error}; webhooks go by curl (apt-get install curl)" if error.permanent else str(error))
    if not ended.in_time:
        return Outcome(False, f"no answer within {TIMEOUT} s")
    code = int(answer) if (answer := ended.out.strip()[-3:]).isdigit() else 0
    if 200 <= code < 300:
        return Outcome(True)
    if ended.status.code == 0 or code >= 300:
        return Outcome(False, f"answered HTTP {code}", refused=code in REFUSED)
    return Outcome(False, f"curl {ended.status}{ended.words}".replace(url, "the URL"))


def configuration(url: str, headers: Mapping[str, str]) -> str:
    """What curl is to do (curl(1), "--config"). Nothing in it holds a quote or a backslash: see ``sinks``."""
    scheme = url.partition(":")[0]
    lines = [
        f'url = "{url}"',
        f'proto = "={scheme}"',
        "globoff",
        'noproxy = "*"',
        "silent",
        "show-error",
        f"connect-timeout = {_CONNECT}",
        f"max-time = {TIMEOUT}",
        'output = "/dev/null"',
        'write-out = "%{http_code}"',
        'user-agent = "agent"',
        'header = "Expect:"',
        'data-binary = "@-"',
        *(f'header = "{name}: {value}"' for name, value in headers.items()),
    ]
    return "\n".join(lines) + "\n"
