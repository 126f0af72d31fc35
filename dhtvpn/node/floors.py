"""The highest sequence number of every member, and of this node, on disk: no restart brings an older record
back, be it that of a member that has left, and none makes this node write below what it wrote before.
"""

import logging
from pathlib import Path
from typing import Any

from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.files import keep_copy, read_json, write_json
from dhtvpn.records.envelope import MAX_SEQUENCE
from dhtvpn.records.roster import MAX_REMEMBERED, Floor

log = logging.getLogger(__name__)

VERSION = 1
RESERVE = 60_000
"""Sequence numbers are milliseconds where the clock is right. What is written down is this much ahead, so
that a node that dies between two saves, and finds its clock set back, is above all it wrote."""


class Floors:
    """One file per network. Bounded by the roster: MAX_REMEMBERED members."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: dict[str, Any] | None = None

    def load(self) -> tuple[int, dict[bytes, Floor]]:
        """Our own floor, and those of members by node key. Without a file, or with a damaged one, which
        is kept beside: 0 and none."""
        try:
            content = read_json(self._path)
            if content is None:
                return 0, {}
            if content.get("version") != VERSION or not isinstance(content.get("members"), dict):
                raise DamagedStateError(f"{self._path} is damaged (no sequence numbers)")
            members = {_node_key(key): _floor(value) for key, value in content["members"].items()}
            return _sequence(content["own"]), dict(list(members.items())[:MAX_REMEMBERED])
        except SystemRefusedError as error:
            log.warning("%s: starting without remembered sequence numbers", error)
        except (DamagedStateError, ValueError, TypeError, KeyError) as error:
            self._keep(error)
        return 0, {}

    def save(self, own: int, members: dict[bytes, Floor]) -> None:
        """Replace the file where something has changed. Raises SystemRefusedError."""
        content = {
            "version": VERSION,
            "own": min(own + RESERVE, MAX_SEQUENCE - 1) if own else 0,
            "members": {key.hex(): [floor.sequence, int(floor.until)] for key, floor in members.items()},
        }
        if content != self._saved:
            write_json(self._path, content)
            self._saved = content

    def _keep(self, error: Exception) -> None:
        try:
            copy: object = keep_copy(self._path)
        except SystemRefusedError as refused:
            copy = refused
        log.warning("%s is damaged (%s; copy: %s): starting without it", self._path, error, copy)


def _node_key(text: Any) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError("node key")
    return key


def _floor(value: Any) -> Floor:
    sequence, until = value
    if type(until) is not int or not 0 <= until < 1 << 40:
        raise ValueError("until")
    return Floor(_sequence(sequence), float(until))


def _sequence(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_SEQUENCE:
        raise ValueError("sequence")
    return value
