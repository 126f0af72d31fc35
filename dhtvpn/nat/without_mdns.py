"""Keeps aioice's resolver of ".local" candidates out of the process.

It brings dnspython along, 46 modules and 4 MB, to look up names. Our candidates are addresses, always: a
record that holds anything else is not read. Imported by the room itself, before anybody imports aioice.
"""

import sys
from types import ModuleType
from typing import Final

NAME: Final = "aioice.mdns"


class MDnsProtocol:
    """Stands in annotations only."""


def is_mdns_hostname(host: str) -> bool:
    """No candidate of ours has a name."""
    return False


def replace() -> None:
    """Put a module without a resolver in its place, unless the real one is there already."""
    if NAME not in sys.modules:
        module = ModuleType(NAME, __doc__)
        module.__dict__.update(MDnsProtocol=MDnsProtocol, is_mdns_hostname=is_mdns_hostname)
        sys.modules[NAME] = module
