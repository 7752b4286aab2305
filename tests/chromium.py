"""Pages in a real browser: headless Chromium, once for each page, with nothing of the host's and no way out."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from pathlib import Path
from typing import NamedTuple

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1000,700"),
    "--enable-logging=stderr",
)

_ITS_OWN = re.compile(r"https?://[a-z0-9.]*google(apis)?\.com/")
"""What Chromium asks for by itself, whatever the page; it gets no answer."""


class Shown(NamedTuple):
    """The document as the browser has it, its picture, what was said on the console, and what was asked for."""

    dom: str
    picture: bytes
    console: list[str]
    asked: list[str]


def show(page: Path, scratch: Path) -> Shown:
    """Open a file."""
    picture, network = scratch / "shown.png", scratch / "network.json"
    files = (f"--user-data-dir={scratch / 'chromium'}", f"--log-net-log={network}", f"--screenshot={picture}")
    done = subprocess.run(
        ["chromium", *FLAGS, *files, "--dump-dom", page.as_uri()],
        capture_output=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(scratch), "TZ": "UTC", "LANG": "C.UTF-8"},
    )
    urls = {str(url) for url in re.findall(r'"url":"([^"]+)"', network.read_text())}
    return Shown(
        done.stdout.decode(),
        picture.read_bytes(),
        [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line],
        sorted(url for url in urls if not _ITS_OWN.match(url) and not url.startswith("chrome")),
    )


def colours(png: bytes) -> dict[bytes, int]:
    """How many points of a picture have which colour. Format: W3C PNG, 8 bits a sample, not interlaced."""
    place, data, width, samples = 8, b"", 0, 3
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        body = png[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, interlaced) == (8, 0)
            samples = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            data += body
        place += 12 + length
    raw, stride = zlib.decompress(data), width * samples
    found: dict[bytes, int] = {}
    above = bytearray(stride)
    for row in range(0, len(raw), stride + 1):
        line = _unfiltered(raw[row], bytearray(raw[row + 1 : row + 1 + stride]), above, samples)
        for at in range(0, stride, samples):
            colour_here = bytes(line[at : at + 3])
            found[colour_here] = found.get(colour_here, 0) + 1
        above = line
    return found


def _unfiltered(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    for at in range(len(line)):
        left = line[at - step] if at >= step else 0
        up = above[at]
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        elif kind == 4:
            corner = above[at - step] if at >= step else 0
            whole = left + up - corner
            guess = min((left, up, corner), key=lambda one: abs(whole - one))  # the first of equals, as it should be
        else:
            break
        line[at] = (line[at] + guess) & 0xFF
    return line


def body(dom: str) -> str:
    """The text of a document without its tags and its style."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", dom, flags=re.DOTALL))
