"""Keeps out of the process what pyroute2 loads beside rtnetlink: databases, nftables, IPVS, a Plan 9 server.

``import pyroute2`` imports all of the library. The parts can be imported one by one once the package itself
is there, so it is put there without its contents. Called by the room itself, before anybody imports pyroute2.
"""

import sys
from importlib.util import find_spec, module_from_spec
from typing import Final

NAME: Final = "pyroute2"


def replace() -> None:
    """Put the bare package in its place, unless it is there already."""
    spec = None if NAME in sys.modules else find_spec(NAME)
    if spec is not None:
        sys.modules[NAME] = module_from_spec(spec)  # made, not executed
