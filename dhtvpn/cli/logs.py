"""Where the log goes: stderr for a node in the foreground, a file of its own for a detached one."""

import ipaddress
import logging
import logging.handlers
import os
import re
import sys
from io import TextIOWrapper
from pathlib import Path

FILE_NAME = "node.log"
FILE_LIMIT = 1 << 20  # bytes, ours: one file and the one before it are kept
LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FOREGROUND_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
FILE_LEVELS = (logging.INFO, logging.DEBUG, logging.DEBUG)

_MAYBE_ADDRESS = re.compile(r"\[(?P<host>[0-9a-fA-F:.]+)\](?::\d+)?|[0-9a-fA-F:.]{3,}")
"""A word of the characters that addresses have; ipaddress tells whether it is one, and no time of day."""

OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
"""The directory may belong to a node that is root no more: a link there must not lead root elsewhere."""


class _OwnFile(logging.handlers.RotatingFileHandler):
    """Opens no link."""

    def _open(self) -> TextIOWrapper:
        return open(os.open(self.baseFilename, OPEN_FLAGS, 0o600), "a", encoding=self.encoding)  # noqa: PTH123


class _WithoutAddresses(logging.Formatter):
    """The whole text of a record, tracebacks too, with addresses replaced."""

    def format(self, record: logging.LogRecord) -> str:
        return without_addresses(super().format(record))


def without_addresses(text: str) -> str:
    """``text`` with every IPv4 and IPv6 address in it replaced, and the port behind."""
    return _MAYBE_ADDRESS.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    """The replacement, or the word itself where no part of it is an address."""
    if found["host"]:
        return "[address]" if _is_address(found["host"]) else found[0]
    word = found[0].rstrip(".:")
    for host in (found[0], word, word.partition(":")[0]):
        if _is_address(host):
            return "[address]" + found[0][len(word) :]
    return found[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def start(verbose: int, file: Path | None = None, *, addresses: bool = True) -> None:
    """Set up logging for a node: ``verbose`` is how often -v was given; ``file`` is made 0600. Without
    ``addresses`` none appears, at whatever level."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
        level = FOREGROUND_LEVELS[min(verbose, 2)]
    else:
        os.umask(0o077)  # a rotated file is made anew, and must be ours only too
        handler = _OwnFile(file, maxBytes=FILE_LIMIT, backupCount=1, encoding="utf-8")
        level = FILE_LEVELS[min(verbose, 2)]
    handler.setFormatter((logging.Formatter if addresses else _WithoutAddresses)(LINE))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("dhtvpn").setLevel(level)
    if os.environ.get("DHTVPN_DEBUG") == "1":
        logging.getLogger().setLevel(logging.DEBUG)
