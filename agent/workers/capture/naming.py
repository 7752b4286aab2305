"""Names of segments: the instant of the first packet, so that names sort as time does and tell where to look.

``20261120T140000.123456Z.pcap`` is a closed segment, the same with ``.part`` one that is being written; that one bears
the instant it was opened at, for nothing is in it yet. UTC, microseconds, ISO 8601 basic format. A name that is not
exactly of this form is not ours. The other files of a segment bear its name with their own suffix (``catalogue``).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

CLOSED = ".pcap"
OPEN = ".part"

MICROSECOND = 1000
"""Nanoseconds: from one name to the next that there is."""

_NAME = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{6})Z(\.pcap|\.part)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def segment_name(instant: int, suffix: str) -> str:
    """The name of a segment that begins at ``instant``, nanoseconds since the epoch (until the year 9999)."""
    seconds, nanoseconds = divmod(instant, 1_000_000_000)
    begin = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // MICROSECOND)
    return f"{begin:%Y%m%dT%H%M%S.%f}Z{suffix}"


def parse_name(name: str) -> tuple[int, str] | None:
    """The instant (nanoseconds since the epoch) and the suffix of a segment's name; ``None`` when it is not ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    *digits, suffix = match.groups()
    year, month, day, hour, minute, second, microsecond = (int(part) for part in digits)
    try:
        begin = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC)
    except ValueError:  # such as the 31st of February
        return None
    since = begin - _EPOCH
    if since.days < 0:
        return None
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * MICROSECOND, suffix


def valid_interface(name: str) -> bool:
    """Whether ``name`` can name an interface, by the rules of ``dev_valid_name`` in net/core/dev.c.

    Such a name is also safe as the name of a directory.
    """
    encoded = name.encode("utf-8", "surrogateescape")
    return (
        0 < len(encoded) < 16
        and name not in (".", "..")
        and not any(character in "/:" or character.isspace() for character in name)
        and "\0" not in name
    )
