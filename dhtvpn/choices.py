"""What a user chooses for a node, as words on the command line and in files."""

from enum import Enum
from importlib.util import find_spec

from dhtvpn.errors import SystemRefusedError, UsageError


class Discovery(Enum):
    """A source of other members' records that can be chosen. Remembered peers and hints are always used."""

    LAN = "lan"
    """Multicast on the local link."""
    KADEMLIA = "kademlia"
    """The DHT of dhtvpn nodes."""
    MAINLINE = "mainline"
    """The public BitTorrent DHT; needs libtorrent."""


DEFAULT_DISCOVERY = (Discovery.LAN, Discovery.KADEMLIA)
MAINLINE_MODULE = "libtorrent"


def parse_discovery(text: str) -> tuple[Discovery, ...]:
    """``text`` is words of Discovery with commas between them. Raises UsageError that says what is wrong."""
    words = [word.strip().lower() for word in text.split(",")]
    known = ", ".join(source.value for source in Discovery)
    chosen: dict[Discovery, None] = {}
    for word in words:
        if not word:
            raise UsageError(f"--discovery {text!r} has an empty place: write it like lan,kademlia")
        try:
            chosen[Discovery(word)] = None
        except ValueError:
            raise UsageError(f"--discovery: there is no source {word!r}; choose from {known}") from None
    return tuple(chosen)


def with_mainline(chosen: tuple[Discovery, ...]) -> tuple[Discovery, ...]:
    """``chosen``, or the default, and mainline."""
    return tuple(dict.fromkeys((*(chosen or DEFAULT_DISCOVERY), Discovery.MAINLINE)))


def require_available(chosen: tuple[Discovery, ...]) -> None:
    """Raises SystemRefusedError, which says what to install, where a source needs what is not here."""
    if Discovery.MAINLINE in chosen and find_spec(MAINLINE_MODULE) is None:
        raise SystemRefusedError(
            "mainline needs libtorrent, which is not installed: pip install 'dhtvpn[mainline]' (there are "
            "wheels for CPython 3.11 to 3.13 on x86-64, and for few others), or choose --discovery without it"
        )


RELAY_MBIT = 100
"""Relayed for other members a second, unless the user says otherwise."""
OCTETS_PER_MBIT = 125_000
