"""Which values are secrets, and how a text is shown without them.

A variable is secret by its name. Its value is then hidden wherever it comes up: in ``agentctl config show``, in
messages, in logs. Values that a person would call short are not searched for in text, as hiding every ``a`` would hide
everything and tell the secret all the same: the whole field they were written into is hidden instead.
"""

from __future__ import annotations

from collections.abc import Iterable

MASK = "****"

SHORT = 4
"""A secret of fewer characters than this hides its whole field."""

_ANYWHERE = ("PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIAL", "APIKEY", "PRIVATEKEY", "ACCESSKEY")
_WORDS = frozenset({"PASS", "PWD", "KEY", "KEYS", "PIN", "AUTH"})
_NOT_SECRET = frozenset({"PWD", "OLDPWD"})


def looks_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret: ``DB_PASSWORD``, ``API_KEY``, ``apikey``; not ``MONKEY``."""
    upper = name.upper()
    if upper in _NOT_SECRET:
        return False
    return any(part in upper for part in _ANYWHERE) or not _WORDS.isdisjoint(upper.split("_"))


def mask(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret of at least ``SHORT`` characters replaced, longest first."""
    for secret in sorted((s for s in secrets if len(s) >= SHORT), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def mask_field(text: str, secrets: Iterable[str]) -> str:
    """A field known to hold a secret: masked in part where that hides it all, else as a whole."""
    secrets = tuple(secrets)
    if any(len(secret) < SHORT and secret in text for secret in secrets):
        return MASK
    masked = mask(text, secrets)
    return masked if masked != text else MASK
