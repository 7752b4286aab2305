"""``python -m agent``: the entry of the container image, of a frozen binary, and of the processes the agent starts.

Four words are internal: ``daemon`` and ``once`` are what ``agentctl run`` (with options) and ``run-once`` become,
``worker`` is what a supervised capture or scan is, ``prove`` one part of ``agentctl selftest``. They are told apart
here, before anything is imported, because each must load only its own half of the program: a process that runs for
months should not carry a command-line parser and a table renderer in memory, and ``execve`` into a fresh interpreter is
the only way to be rid of modules once loaded. The process ID stays the same across it, so a service manager sees one
process from start to end.

Everything else is the command line, except that ``python -m agent [OPTIONS] CONFIG`` means ``agentctl run [OPTIONS]
CONFIG``.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

try:
    from agent.cli.commands import COMMANDS, COMPLETE_VARIABLE
    from agent.cli.guard import INTERNAL_ERRORS, guarded, internal
    from agent.control.lean import leave_out_tls
    from agent.linux.environment import one_file
    from agent.paths import Paths
except Exception as error:
    # Python would end with 1, which means a wrong declaration, and no supervisor would try again.
    print(f"agentctl: a part of this program is missing or damaged: {error}; install it again", file=sys.stderr)
    os._exit(2)


def main(arguments: list[str] | None = None) -> int:
    """Run the part of the program that ``arguments`` ask for (those of the process when left out).

    Returns the exit code of the contract.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _part(arguments)
    except Exception as error:  # of an import: each part has its own guard once it is there
        return internal(error, "agentctl", lambda: Paths.of().logs / INTERNAL_ERRORS)


def _part(arguments: list[str]) -> int:
    match arguments:
        case ["worker", kind]:
            from agent.workers.main import main as work

            return work(kind)
        case ["daemon", "plain" | "json" as form, prefix, declaration, *line] if len(line) < 2:
            return _daemon(Paths.of(prefix, declaration), form == "json", *line)
        case ["run"] if COMPLETE_VARIABLE not in os.environ:
            return _run()
        case ["once", "plain" | "json" as form, prefix, declaration, name, *retry] if retry in ([], ["retry"]):
            return _once(Paths.of(prefix, declaration), form == "json", name, bool(retry))
        case ["prove", part, *directory] if len(directory) < 2:
            leave_out_tls()
            from agent.cli.proofs import main as prove

            return prove(part, *directory)
        case _:
            from agent.cli.main import main as agentctl

            return agentctl(container_arguments(arguments))


def container_arguments(arguments: list[str]) -> list[str]:
    """Put ``run`` before arguments that are options and then, last, the path of a declaration.

    A path is a word that ends in ``.toml`` or names an existing file, and is no command. Anything else is left as it
    is.
    """
    words = _words(arguments)
    if len(words) == 1 and arguments[-1] == words[0] and words[0] not in COMMANDS and _is_declaration(words[0]):
        return ["run", *arguments]
    return arguments


def _words(arguments: list[str]) -> list[str]:
    """The arguments that are neither options nor the value of ``--prefix``, the only option of ``run`` with a value."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [word for before, word in pairs if not word.startswith("-") and before != "--prefix"]


def _is_declaration(word: str) -> bool:
    return word.endswith(".toml") or Path(word).is_file()


def _run() -> int:
    """``agentctl run`` without options, as a unit file says it: nothing to parse, so this process can be the agent.

    That spares a second interpreter and click: 50 ms of every start.
    """

    def work() -> int:
        from agent.cli.invitation import hint

        paths = Paths.of()
        return _daemon(paths, False, *hint(paths))

    return guarded(work, program="agentctl", log=lambda: Paths.of().logs / INTERNAL_ERRORS)


def _daemon(paths: Paths, json: bool, line: str | None = None) -> int:
    """The agent itself, in the foreground. ``line`` is for the person who started it."""

    def work() -> int:
        if one_file():
            from agent.installation.unpacked import move_in

            form = "json" if json else "plain"
            move_in(
                paths, ["daemon", form, str(paths.prefix), str(paths.declaration), *([] if line is None else [line])]
            )
        leave_out_tls()
        from agent.control.daemon import run

        if user := _as_its_owner(paths):
            print(
                f"agent: runs as user {user}, to whom the data below {paths.prefix} belongs",
                file=sys.stderr,
                flush=True,
            )
        return run(paths, json=json, hint=line)

    return guarded(work, program="agent", log=paths.logs / "agent.log")


def _once(paths: Paths, json: bool, name: str, retry: bool) -> int:
    """One service or job in the foreground."""

    def work() -> int:
        if one_file():
            from agent.installation.unpacked import move_in

            words = ["once", "json" if json else "plain", str(paths.prefix), str(paths.declaration), name]
            move_in(paths, [*words, *(["retry"] if retry else [])])
        leave_out_tls()
        from agent.control.once import run_once

        _as_its_owner(paths)
        return run_once(paths, name, json=json, retry=retry)

    return guarded(work, program="agentctl", log=paths.logs / INTERNAL_ERRORS)


def _as_its_owner(paths: Paths) -> str | None:
    """Below a prefix of somebody else's a person or cron who is root runs things as that user; a unit says as whom."""
    if "NOTIFY_SOCKET" in os.environ:
        return None
    from agent.control.layout import lay_out_for
    from agent.linux.owner import owner, step_down

    user = owner(*paths.owned)
    if user is None:
        return None
    lay_out_for(user, paths)
    step_down(user)
    return user.name


def leave(code: int) -> NoReturn:
    """End this process with what it has printed, and without taking the interpreter apart first.

    That would be an eighth of `agentctl status`. A worker takes its time: C libraries may hold output of their own.
    """
    if sys.argv[1:2] == ["worker"]:
        sys.exit(code)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):  # told already, by whoever printed
                stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
