"""Give up what the engine does not need: it has its descriptors and opens nothing any more.

Each step is tried on its own; what the system refuses is left, for the engine works all the same.
"""

import os
from contextlib import suppress

from dhtvpn.confinement import kernel, landlock, system_calls


def drop_privileges() -> None:
    """Become nobody if root, drop every capability, never gain one again, and leave no core dump."""
    with suppress(OSError):
        kernel.bound_to()
    if os.geteuid() == 0:
        with suppress(OSError):  # a user namespace without that user
            kernel.become(kernel.NOBODY, kernel.NOBODY)
    for step in (kernel.keep_only, kernel.no_new_privileges, kernel.no_core_no_tracing):
        with suppress(OSError):
            step()


def leave_file_system() -> None:
    """Nothing can be opened, run or made any more; what is to be imported has been imported."""
    with suppress(OSError):
        landlock.restrict([])
    with suppress(OSError):
        system_calls.restrict()
