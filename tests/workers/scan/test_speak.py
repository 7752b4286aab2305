"""Whether a port speaks, by real servers of every kind on the loopback."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.errors import ScanFailure
from agent.workers.scan import requests
from agent.workers.scan.speak import Clock, How, hear, look

QUICK = Clock(grace=0.15, banner=0.4, limit=2.0, connect=2.0, quiet=0.3, talk=0.8)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def banner(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 here\r\n")


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def closes(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    return


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if (await reader.readline()).startswith(b"GET / HTTP/1."):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        await reader.read(-1)


async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if await reader.readexactly(4) == b"\r\n\r\n":
        writer.write(b"what?\r\n")
    else:
        await reader.read(-1)


async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if await reader.readexactly(4) == b"PING":
        writer.write(b"+PONG\r\n")
    else:
        await reader.read(-1)


async def odd(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"good day\r\n")


async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A greeting (RFC 5321, 4.2.1, lets it have any number of lines) that never ends."""
    while True:
        writer.write(b"220-yes\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def floods(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 16_384)
        await writer.drain()


async def drips_when_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    await drips(reader, writer)


async def film(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if (await reader.readline()).startswith(b"GET /"):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await floods(reader, writer)
    await reader.read(-1)


async def serving(serve: Serve, context: ssl.SSLContext | None = None, *, port: int = 0) -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, ssl=context)
    return server, server.sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    place = tmp_path_factory.mktemp("tls")
    key, certificate = place / "key", place / "certificate"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*made, "-subj", "/CN=x", "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_each_kind_of_server_is_told_from_silence(tls: ssl.SSLContext) -> None:
    async def scenario() -> dict[str, str]:
        kinds: dict[str, Serve] = {"banner": banner, "http": http, "lines": lines, "closed": closes, "nothing": silent}
        made = {name: await serving(serve) for name, serve in kinds.items()}
        made["tls"] = await serving(silent, tls)
        made["unreachable"] = await serving(silent)
        made["unreachable"][0].close()
        await made["unreachable"][0].wait_closed()
        found = (await look({"127.0.0.1": [port for _, port in made.values()]}, clock=QUICK))["127.0.0.1"]
        for server, _ in made.values():
            server.close()
        return {name: found[port] for name, (_, port) in made.items()}

    for name, how in asyncio.run(scenario()).items():
        assert how == name


def test_who_never_stops_talking_is_told_from_who_does() -> None:
    kinds = {drips: "endless", floods: "endless", drips_when_asked: "endless", odd: "odd", film: "http"}

    async def scenario() -> dict[str, str]:
        made = {kind.__name__: await serving(kind) for kind in kinds}
        found = (await look({"127.0.0.1": [port for _, port in made.values()]}, clock=QUICK))["127.0.0.1"]
        for server, _ in made.values():
            server.close()
        return {name: found[port] for name, (_, port) in made.items()}

    assert asyncio.run(scenario()) == {kind.__name__: how for kind, how in kinds.items()}


def test_a_host_without_room_for_connections_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a sweep by connect has taken all descriptors."""

    async def scenario() -> How:
        server, port = await serving(banner)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = asyncio.Semaphore(1)
        async with server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            asyncio.get_running_loop().call_later(0.3, resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            try:
                return (await look({"127.0.0.1": [port]}, clock=QUICK, room=room))["127.0.0.1"][port]
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert asyncio.run(scenario()) == "banner"


def test_a_host_that_has_no_room_for_long_fails_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else took it, this would wait for ever and say nothing."""
    monkeypatch.setattr("agent.workers.scan.speak.NO_ROOM", 0.2)

    async def scenario() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = asyncio.Semaphore(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            async with asyncio.timeout(5):
                await look({"127.0.0.1": [9]}, clock=QUICK, room=room)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(scenario())
    message = "this host has had no room for a connection for 0 s: Too many open files"
    assert failed.group_contains(ScanFailure, match=message)


@pytest.mark.parametrize("granted", [0, 25])
def test_whoever_waits_for_permits_takes_nobodys_place(granted: int) -> None:
    """Two hosts whose limit is reached, by their first connections or by later ones, and a third one."""
    slow = ("127.0.0.1", "127.0.0.2")

    async def scenario() -> dict[str, dict[int, How]]:
        left = dict.fromkeys(slow, granted)
        never = asyncio.Event()

        async def permit(address: str) -> None:
            if address in slow:
                left[address] -= 1
                if left[address] < 0:
                    await never.wait()

        mute = [socket.create_server(("", 0)) for _ in range(30)]  # the kernel accepts
        server, port = await serving(banner)
        room = asyncio.Semaphore(24)
        ports = [one.getsockname()[1] for one in mute]
        held = [asyncio.ensure_future(look({one: ports}, permit=permit, room=room, rate=10)) for one in slow]
        try:
            async with asyncio.timeout(5):
                while max(left.values()) >= 0:
                    await asyncio.sleep(0.01)
                return await look({"127.0.0.1": [port]}, clock=QUICK, room=room)
        finally:
            for looking in held:
                looking.cancel()
            await asyncio.gather(*held, return_exceptions=True)
            server.close()
            for listener in mute:
                listener.close()

    [[how]] = [list(heard.values()) for heard in asyncio.run(scenario()).values()]
    assert how == "banner"


def test_a_port_gets_the_words_of_its_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> str:
        server, port = await serving(ping)
        monkeypatch.setitem(requests._BY_PORT, port, b"PING\r\n")
        async with server:
            return await hear("127.0.0.1", port, clock=QUICK)

    assert asyncio.run(scenario()) == "protocol"


def test_who_speaks_first_is_asked_nothing_and_nobody_more_than_needed() -> None:
    seen: dict[str, int] = {}

    def counted(name: str, serve: Serve) -> Serve:
        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen[name] = seen.get(name, 0) + 1
            await serve(reader, writer)

        return count

    async def scenario() -> None:
        first, port = await serving(counted("banner", banner))
        second, other = await serving(counted("silent", silent))
        async with first, second:
            await look({"127.0.0.1": [port, other]}, clock=Clock(grace=1.0, banner=1.2, limit=1.5, connect=2.0))

    asyncio.run(scenario())
    assert seen == {"banner": 1, "silent": 3}  # the first connection, HTTP and TLS


def test_printers_are_not_even_connected_to() -> None:
    connected: list[str] = []

    async def permit(address: str) -> None:
        connected.append(address)

    async def scenario() -> dict[str, dict[int, How]]:
        return await look({"127.0.0.1": list(range(9100, 9108))}, permit=permit, clock=QUICK)

    assert asyncio.run(scenario()) == {"127.0.0.1": {}}
    assert connected == []


def test_every_connection_is_permitted_first_and_a_refusal_ends_the_look() -> None:
    class Ended(Exception):
        pass

    async def scenario() -> list[str]:
        permitted: list[str] = []

        async def permit(address: str) -> None:
            permitted.append(address)
            if len(permitted) == 3:
                raise Ended

        server, port = await serving(silent)
        async with server:
            with pytest.raises(ExceptionGroup) as refused:
                await look({"127.0.0.1": [port]}, permit=permit, clock=QUICK)
            assert refused.group_contains(Ended)
        return permitted

    assert asyncio.run(scenario()) == ["127.0.0.1"] * 3


def test_who_has_to_wait_for_a_permit_is_not_taken_for_silent() -> None:
    short = Clock(grace=0.05, banner=0.1, limit=0.6, connect=1.0)
    waits = iter([0.0, 1.0, 0.0])  # the second, which is for HTTP, takes longer than the limit

    async def permit(address: str) -> None:
        await asyncio.sleep(next(waits))

    async def scenario() -> How:
        server, port = await serving(http)
        async with server:
            return await hear("127.0.0.1", port, permit=permit, clock=short)

    assert asyncio.run(scenario()) == "http"


def test_a_stop_leaves_no_connection_open() -> None:
    async def scenario() -> int:
        server, port = await serving(silent)
        async with server:
            looking = asyncio.ensure_future(look({"127.0.0.1": [port]}))
            while not server.sockets or not connections(port):
                await asyncio.sleep(0.01)
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking
            return connections(port)

    def connections(port: int) -> int:
        """Ours to that port, proc_net_tcp(5)."""
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        own = {
            Path(f"/proc/self/fd/{fd.name}").readlink().name for fd in Path("/proc/self/fd").iterdir() if fd.exists()
        }
        return sum(line.split()[2].endswith(f":{port:04X}") and f"socket:[{line.split()[9]}]" in own for line in lines)

    assert asyncio.run(scenario()) == 0
