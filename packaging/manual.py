"""The manual page agentctl(1), from what the commands say of themselves: in the macros of man(7), which every reader of
manual pages knows.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import time
from collections.abc import Iterable, Iterator

import click

from agent import __version__
from agent.cli.base import EXIT_CODES
from agent.cli.flows import FlowCommands
from agent.cli.main import PROGRAM, agentctl
from agent.paths import Paths

_SPECIAL = {"\\": r"\(rs", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", "-": r"\-"}
"""Characters that a typesetter would replace by nicer ones, or obeys: groff_char(7)."""

_AS_IT_IS = "\b"
"""click's mark at the begin of a paragraph that must not be wrapped."""

_UNBROKEN = (".nh", ".ad l")
"""Paths and options are not hyphenated, and so the right margin is ragged."""

_WIDTH = 76
"""Characters of a line of input."""

_OPTIONS = frozenset({"--help", "--version", "--prefix", "--json"})
"""Options that every command takes; they are described once."""


def page(epoch: int) -> str:
    """The page of this version, dated ``epoch``, in seconds since 1970."""
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    title = f'.TH {PROGRAM.upper()} 1 {date} "agent {__version__}" "User Commands"'
    return "\n".join([title, *_UNBROKEN, *_without_empty_paragraphs(_sections())]) + "\n"


def _without_empty_paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """``lines`` without the paragraphs that begin where a section does."""
    before = ""
    for line in lines:
        if line != ".PP" or not before.startswith((".SH", ".SS")):
            yield line
        before = line


def _sections() -> Iterator[str]:
    context = click.Context(agentctl, info_name=PROGRAM, **agentctl.context_settings)
    yield from (".SH NAME", rf"{PROGRAM} \- {_purpose()}")
    yield from (".SH SYNOPSIS", *_usage(context))
    yield from (".SH DESCRIPTION", *_text(agentctl.help or ""))
    yield from (".SH OPTIONS", ".PP", "These stand before or after the command.", *_options(context, shared=True))
    yield ".SH COMMANDS"
    yield from _commands(agentctl, context)
    yield from (".SH EXIT STATUS", *_text(EXIT_CODES))
    yield from (
        ".SH ENVIRONMENT",
        *_list({"PREFIX": "As --prefix.", "NO_COLOR": "When it is set to anything: no colours."}),
    )
    yield from (".SH FILES", *_list(_files()))
    yield from (".SH SEE ALSO", ".BR systemd (1),", ".BR systemd.time (7),", ".BR pcap\\-filter (7),", ".BR nmap (1)")


def _purpose() -> str:
    """The first sentence of the program's help, as a phrase."""
    sentence = (agentctl.help or "").partition(".")[0]
    return sentence[:1].lower() + sentence[1:]


def _files() -> dict[str, str]:
    paths = Paths.of("/PREFIX")
    described = {
        paths.declaration: "The declaration: what should be true on this host.",
        paths.socket: "The control socket.",
        paths.log("NAME"): "What the service NAME printed.",
        paths.data("NAME"): "What the service NAME stored. Of a capture: a directory for each interface, with its "
        "segments (.pcap; .part is being written), their accounts (.meta) and indexes (.idx, .tail).",
        paths.data("NAME") / "pin-ID.json": "A pin of the capture NAME.",
        paths.data("NAME") / "hosts.json": "The hosts that the capture NAME has seen.",
    }
    return {str(path).removeprefix("/"): text for path, text in described.items()}


def _commands(group: click.Group, above: click.Context) -> Iterator[str]:
    """A subsection for each command; of a group for its own commands, and for itself where it does something itself."""
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=above, **command.context_settings)
        if isinstance(command, click.Group):
            if isinstance(command, FlowCommands):  # it does something without a command, too
                yield from (f".SS {_escaped(context.command_path)}", *_usage(context), *_text(command.help or ""))
                yield from _text(command.epilog or "")
            yield from _commands(command, context)
            continue
        yield from (f".SS {_escaped(context.command_path)}", *_usage(context), *_text(command.help or ""))
        yield from _options(context, shared=False)
        yield from _text(command.epilog or "")


def _usage(context: click.Context) -> Iterator[str]:
    words = " ".join(_escaped(word) for word in context.command.collect_usage_pieces(context))
    yield from (".PP", f"\\fB{_escaped(context.command_path)}\\fR {words}")


def _options(context: click.Context, *, shared: bool) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and shared == bool(_OPTIONS.intersection(parameter.opts)):
            yield from _list({record[0]: record[1]})


def _list(entries: dict[str, str]) -> Iterator[str]:
    for name, text in entries.items():
        yield from (".TP", f"\\fB{_escaped(name)}\\fR", *_lines(text))


def _text(text: str) -> Iterator[str]:
    """Paragraphs, as click's help texts are written."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        first, *rest = paragraph.split("\n")
        if first == _AS_IT_IS:
            title, *lines = rest
            yield from (".PP", *_lines(title), ".PP", ".RS 4", ".EX")
            yield from (_guarded(_escaped(line.strip())) for line in lines)
            yield from (".EE", ".RE")
        else:
            yield from (".PP", *_lines(paragraph))


def _lines(text: str) -> Iterator[str]:
    """A paragraph as lines of input: each sentence begins one. What stands in back quotes is in bold."""
    parts = re.split(r"`([^`]+)`", " ".join(text.split()))
    shown = (f"\\fB{_escaped(part)}\\fR" if place % 2 else _escaped(part) for place, part in enumerate(parts))
    for sentence in re.split(r"(?<=[.:]) +(?=[A-Z])", "".join(shown)):
        yield from map(_guarded, textwrap.wrap(sentence, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)


def _guarded(line: str) -> str:
    """A line that is no request, whatever it begins with."""
    return rf"\&{line}" if line.startswith((".", "\\(aq")) else line
