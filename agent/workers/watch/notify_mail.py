"""A message by mail, by way of this host's own mail system.

Whoever listens on port 25 of the loopback interface is spoken to (SMTP, RFC 5321): in the sandbox of the unit no
program gains rights by being started, and ``sendmail`` of most mail systems has to. Where nobody listens, ``sendmail``
it is, as small ones without a service of their own bring it.

The text of a mail is that of strangers: each header is one line of bounded length, and what is not plain ASCII is
encoded (RFC 2047), as the body is (RFC 2045, 6.8).
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agent.errors import SpawnFailed
from agent.workers.watch.notify_message import cut
from agent.workers.watch.notify_program import Outcome, handed_over

SENDMAIL: Final = "/usr/sbin/sendmail"
"""Where every mail system puts it (Filesystem Hierarchy Standard 3.0, 4.10)."""

TIMEOUT: Final = 30.0
"""Seconds that a delivery takes at most."""

_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_PLAIN = re.compile(r"[ -~]{0,200}")
_ENCODED: Final = 42  # bytes of text in one encoded word, which has 75 characters at most
_LONGEST_REPLY: Final = 4096
_REFUSING: Final = ("552", "554", "523")
"""Replies to the text of a mail that refuse this very one: too large, or refused for what it says."""


def mail_name() -> str:
    """The domain of mail from this host (/etc/mailname, mailname(5)), else its own name."""
    with suppress(OSError, UnicodeDecodeError):
        first = Path("/etc/mailname").read_text()[:300].strip()
        if _DOMAIN.fullmatch(first):
            return first
    name = os.uname().nodename
    return name if _DOMAIN.fullmatch(name) else "localhost"


def qualified(recipient: str, domain: str) -> str:
    """An address with a domain: no other is one in SMTP (RFC 5321, 2.3.5), and Exim takes no other."""
    return recipient if "@" in recipient else f"{recipient}@{domain}"


def mail(recipient: str, message: Mapping[str, Any], domain: str) -> bytes:
    """The mail that tells of a message (RFC 5322), with LF at the end of its lines."""
    sender = f"agent@{domain}"
    created = time.gmtime(float(message["created"]))
    headers = [
        ("From", f"agent <{sender}>"),
        ("To", qualified(recipient, domain)),
        ("Subject", header_text(f"[{message['severity']}] {message['text']}")),
        ("Date", time.strftime("%a, %d %b %Y %H:%M:%S +0000", created)),
        ("Message-ID", f"<{message['id']}@{domain}>"),
        ("Auto-Submitted", "auto-generated"),  # RFC 3834, 5: nobody's absence need be told to us
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "base64"),
    ]
    encoded = base64.encodebytes(body(message).encode("utf-8", "replace")).decode()
    return ("".join(f"{name}: {value}\n" for name, value in headers) + "\n" + encoded).encode("ascii")


def header_text(text: str) -> str:
    """One line as a header may have it, folded where it is encoded."""
    line = cut(text)
    if _PLAIN.fullmatch(line) and "=?" not in line:
        return line
    words, word = [], b""
    for character in line:
        piece = character.encode("utf-8", "replace")
        if len(word) + len(piece) > _ENCODED:
            words.append(word)
            word = b""
        word += piece
    return "\n ".join(f"=?utf-8?B?{base64.b64encode(one).decode()}?=" for one in (*words, word))


def body(message: Mapping[str, Any]) -> str:
    """What a person reads: the events, one a line, and what was left out."""
    lines = [str(message["text"]), ""]
    for event in message["events"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(event["time"])))
        lines.append(f"{when} {event['severity']:7} {event['service']} {event['kind']}: {event['message']}")
    if message["left_out"]:
        lines.append(f"and {message['left_out']} more: agentctl events")
    return "\n".join([*lines, "", f"server {message['server']}, message {message['id']}", ""])


async def send(recipient: str, message: Mapping[str, Any], environment: Mapping[str, str], port: int = 25) -> Outcome:
    """Hand a mail over to this host's mail system."""
    domain = mail_name()
    content = mail(recipient, message, domain)
    try:
        async with asyncio.timeout(TIMEOUT):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LONGEST_REPLY)
            except OSError:
                return await _by_sendmail(recipient, content, domain, environment)
            try:
                return await _by_smtp(reader, writer, qualified(recipient, domain), content, domain)
            finally:
                writer.close()
    except TimeoutError:
        return Outcome(False, f"the mail system took longer than {TIMEOUT:.0f} s")
    except (OSError, ValueError) as error:  # the latter for a line without an end
        return Outcome(False, f"the mail system on port {port}: {error}")


async def _by_smtp(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recipient: str, content: bytes, domain: str
) -> Outcome:
    lines = content.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")  # RFC 5321, 4.5.2
    # What is said, how an answer begins that lets us go on, and those that refuse this very mail.
    steps: list[tuple[bytes, str, tuple[str, ...]]] = [
        (b"", "220", ()),
        (f"EHLO {domain}\r\n".encode(), "250", ()),
        (f"MAIL FROM:<agent@{domain}>\r\n".encode(), "250", ()),
        (f"RCPT TO:<{recipient}>\r\n".encode(), "25", ()),
        (b"DATA\r\n", "354", _REFUSING),
        (lines + b".\r\n", "250", _REFUSING),
    ]
    for said, wanted, refusing in steps:
        writer.write(said)
        await writer.drain()
        reply = await _reply(reader)
        if not reply.startswith(wanted):
            why = f"the mail system says: {cut(reply) or 'nothing'}"
            return Outcome(False, why, refused=reply.startswith(refusing))
    writer.write(b"QUIT\r\n")
    return Outcome(True)


async def _reply(reader: asyncio.StreamReader) -> str:
    """The last line of a reply; those before it have a dash behind their code (RFC 5321, 4.2.1)."""
    for _ in range(100):
        line = (await reader.readline()).decode("utf-8", "replace").rstrip()
        if line[3:4] != "-":
            return line
    raise ValueError("a reply of more than 100 lines")


async def _by_sendmail(recipient: str, content: bytes, domain: str, environment: Mapping[str, str]) -> Outcome:
    """``-oi``: a line with a dot alone ends nothing. The recipient is on the command line, never taken from headers,
    and as it was declared: who a user of this host is, is for ``sendmail`` to say.
    """
    argv = [SENDMAIL, "-oi", "-f", f"agent@{domain}", recipient]
    try:
        return await handed_over(argv, environment, content, timeout=TIMEOUT, name="sendmail")
    except SpawnFailed as error:
        if error.permanent:
            return Outcome(False, f"nobody listens on port 25 of this host, and {error}; install a mail system")
        return Outcome(False, str(error))
