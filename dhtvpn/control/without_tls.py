"""Keeps TLS out of the HTTP server: the local API is a Unix socket.

At its import aiohttp makes a TLS context for its client and reads every certificate authority of the machine,
which takes longer than all of this room. Where Python comes without TLS it goes without too.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

NAME: Final = "ssl"


@contextmanager
def importing() -> Iterator[None]:
    """What is imported inside finds no TLS, unless it was imported before."""
    loaded = sys.modules.get(NAME)
    sys.modules[NAME] = None  # type: ignore[assignment]  # the import system's word for: not there
    try:
        yield
    finally:
        del sys.modules[NAME]
        if loaded is not None:
            sys.modules[NAME] = loaded
