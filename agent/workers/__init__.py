"""What runs inside a child process of the agent: one runtime, and one worker per kind of service."""

import os

from agent.linux.packed import unpack_for

# numpy brings OpenBLAS, which starts a thread for each processor when it is loaded, for products of matrices that
# nobody forms here. It is told by its environment, and all that use numpy are below.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
unpack_for("numpy")
