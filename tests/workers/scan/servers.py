"""Listeners that behave as nobody's real server does on purpose.

Run as a program where the servers are, with a JSON list of ``[address, [port, ...], behaviour]``. It says ``ready``
when all of them listen, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from contextlib import suppress

LATE = 2.0
DRIP = 0.2
BACKLOG = 4096


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Takes whatever comes and never says a word."""
    while await reader.read(65536):
        pass


async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets when most have given up."""
    await asyncio.sleep(LATE)
    writer.write(b"220 printer FTP server ready.\r\n")
    await silent(reader, writer)


async def closes(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Lets nobody in."""


async def tarpit(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lines that could be the beginning of SSH (RFC 4253, 4.2, lets any come before the version), without end."""
    while True:
        writer.write(b"%x\r\n" % id(writer))
        await writer.drain()
        await asyncio.sleep(DRIP)


BEHAVIOURS = {"silent": silent, "late": late, "closes": closes, "tarpit": tarpit}


async def serve(wanted: list[tuple[str, list[int], str]]) -> None:
    servers = []
    for address, ports, behaviour in wanted:

        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behaviour: str = behaviour
        ) -> None:
            with suppress(OSError):
                await BEHAVIOURS[behaviour](reader, writer)
            writer.close()

        for port in ports:
            family, _, _, _, end = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]  # which knows of zones
            listening = socket.create_server(end, family=family, backlog=BACKLOG)
            servers.append(await asyncio.start_server(answer, sock=listening, backlog=BACKLOG))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(serve(json.loads(sys.argv[1])))
