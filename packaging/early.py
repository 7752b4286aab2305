"""The first module that a built program executes: until the command line can answer a Ctrl-C, it just ends the process.

Python's own answer, an exception, would come from wherever the start is just then: a traceback, and exit code 1, which
means a wrong configuration. ``agent.cli.guard`` puts it in force again. A module in C is all there is this early.
"""

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
