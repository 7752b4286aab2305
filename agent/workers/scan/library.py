"""python-nmap, imported without ``multiprocessing``.

Its runners start nmap in a forked copy of the whole program, and so it imports ``multiprocessing``, which a frozen
program must not have: whatever starts a process with it runs the program anew. We take python-nmap's parser only, so
the module stands empty while it is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType

_NAME = "multiprocessing"
_stand_in = ModuleType(_NAME)
_stand_in.__dict__["Process"] = None
_found = sys.modules.setdefault(_NAME, _stand_in)
try:
    import nmap
finally:
    if _found is _stand_in:
        del sys.modules[_NAME]

__all__ = ["nmap"]
