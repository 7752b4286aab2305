"""Every failure this program can report, as one tree with its exit codes.

::

    AgentError                        2   something failed while running
    ├── ConfigurationError            1   the declaration or the command line is wrong
    │   ├── DeclarationError          1   problems found in env.toml, all of them at once
    │   └── UsageError                1   an option, argument or expression that cannot be meant
    └── RuntimeFailure                2   it was right, and still failed
        ├── AlreadyRunning            2   another agent holds this prefix
        ├── NotRunning                2   nobody answers on the control socket
        ├── RequestRefused            2   the agent answered, and the answer was no
        ├── SpawnFailed               2   a child could not be started
        ├── StorageFailure            2   a disk, file or database would not take what it was given
        └── CaptureFailure, ScanFailure
                                      2   raised by the workers of those kinds

The message of an error is one line for a person: what is wrong, where, and what would be right.
No traceback reaches a user: anything that is not an ``AgentError`` is a bug, goes to the log, and exits 2.
"""

from __future__ import annotations

from typing import NamedTuple

EXIT_OK = 0
EXIT_CONFIGURATION = 1
EXIT_RUNTIME = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT: the user pressed Ctrl-C."""


class AgentError(Exception):
    """Base of the tree. ``exit_code`` is the contract's code for a process that ends with it."""

    exit_code = EXIT_RUNTIME


class ConfigurationError(AgentError):
    """The declaration or the command line is wrong; trying again without a change is pointless."""

    exit_code = EXIT_CONFIGURATION


class UsageError(ConfigurationError):
    """An option, argument or expression that cannot be meant."""


class Problem(NamedTuple):
    """One mistake in a declaration.

    ``file`` is the path as the user gave it, ``line`` counts from 1 (0: the file as a whole),
    ``where`` the dotted key (``service.api.restart``; empty for the file itself), ``text`` says what
    is wrong and what would be right.
    """

    file: str
    line: int
    where: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where}: {self.text}" if self.where else f"{place}: {self.text}"


class DeclarationError(ConfigurationError):
    """Everything that is wrong with a declaration, sorted by file and line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RuntimeFailure(AgentError):
    """It was asked for correctly, and failed all the same."""


class AlreadyRunning(RuntimeFailure):
    """Another agent holds this prefix."""

    def __init__(self, prefix: str, pid: int | None) -> None:
        self.pid = pid
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"an agent already runs on {prefix}: {holder} holds it")


class NotRunning(RuntimeFailure):
    """Nobody answers on the control socket."""

    def __init__(self, socket_path: str, reason: str) -> None:
        super().__init__(f"the agent is not running: no answer on {socket_path} ({reason})")


class RequestRefused(RuntimeFailure):
    """The agent answered with an error. ``status`` is the HTTP status code."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)
        if status in (400, 404, 405, 422):
            self.exit_code = EXIT_CONFIGURATION


class SpawnFailed(RuntimeFailure):
    """A child could not be started. ``permanent`` is true when trying again cannot help (no such program or user)."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        self.permanent = permanent
        super().__init__(message)


class StorageFailure(RuntimeFailure):
    """A disk, file or database would not take what it was given."""


class CaptureFailure(RuntimeFailure):
    """Packets cannot be captured or stored."""


class ScanFailure(RuntimeFailure):
    """A scan could not be run or its results not be trusted."""


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended a group of tasks, out of however many groups it came in; what came of it nobody tells."""
    error = group.exceptions[0]
    return first_failure(error) if isinstance(error, BaseExceptionGroup) else error
