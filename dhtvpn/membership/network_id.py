"""The network-id: one word that finds a network and lets its holder in (docs/protocol/network-id.md).

    "dv1" + base32, lower case, without "=", of:

    offset  size  field
    0       1     header: mode (bits 7-5), prefix length of the IPv4 network or 0 (bits 4-0)
    1       32    Ed25519 public key of the network
    33      32    network secret
    65      4     IPv4 network, only when the prefix length is not 0
    65/69   4     CRC-32 of all of the above, little-endian

114 characters, or 120 with an IPv4 network of the creator's choice. A CRC, not a hash, because its
guarantee is the one a person needs: every change inside five neighbouring characters is noticed.
"""

import base64
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError

from nacl.signing import SigningKey

from dhtvpn.errors import InvalidNetworkIdError, UsageError

KEY_SIZE = 32
SECRET_SIZE = 32
PREFIX = "dv1"
MAX_LENGTH = 120
"""Characters of the longest network-id: it still fits one line of a mail or a chat."""

MIN_PREFIX_LENGTH, MAX_PREFIX_LENGTH = 8, 29
"""Of an IPv4 network chosen at create: the largest private block there is; six members."""

IPV4_SPACES = tuple(
    IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
"""Where an overlay network may lie: private space (RFC 1918) and shared space (RFC 6598)."""

_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_CRC_START = zlib.crc32(b"dhtvpn network-id dv1")
_CRC_SIZE = 4
_LENGTH = len(PREFIX) + 111
_LENGTH_WITH_IPV4 = len(PREFIX) + 117


class Mode(Enum):
    """What makes a member. The value is the number on the wire."""

    OPEN = 0
    """Holding the network-id."""
    INVITE = 1
    """A certificate that chains to the network's key."""


@dataclass(frozen=True)
class NetworkId:
    """One network: what it admits, its key, its secret, and the IPv4 network its creator chose.

    Raises UsageError when the parts make no network-id.
    """

    mode: Mode
    public_key: bytes
    """Ed25519, 32 bytes: the network's name in every derivation that outsiders may see the result of."""
    secret: bytes = field(repr=False)
    """32 bytes: finds the network and seals its records."""
    ipv4: IPv4Network | None = None
    """The creator's choice; None means the one derived from the key (``addresses.ipv4_network``)."""

    def __post_init__(self) -> None:
        if len(self.public_key) != KEY_SIZE or len(self.secret) != SECRET_SIZE:
            raise UsageError("a network-id needs a key and a secret of 32 bytes each")
        if self.ipv4 is not None:
            _check_ipv4(self.ipv4)

    def __repr__(self) -> str:
        return f"NetworkId({self.short}, {self.mode.name})"

    @property
    def short(self) -> str:
        """A name for people and logs: 40 bits of the public key, nothing of the secret."""
        return f"{PREFIX}-{_base32(self.public_key)[:8]}"

    def encode(self) -> str:
        """The word itself. It is the network's secret: it goes to the creator's terminal and nowhere else."""
        prefix_length = self.ipv4.prefixlen if self.ipv4 is not None else 0
        payload = bytes([self.mode.value << 5 | prefix_length]) + self.public_key + self.secret
        if self.ipv4 is not None:
            payload += self.ipv4.network_address.packed
        return PREFIX + _base32(payload + _crc(payload))

    @classmethod
    def decode(cls, text: str) -> "NetworkId":
        """The network-id in ``text``; upper case and white space around it do not matter.

        Raises InvalidNetworkIdError with a sentence that says which rule the word breaks, and where.
        """
        word = text.strip()
        _check_prefix(word)
        _check_characters(word)
        body = word[len(PREFIX) :].lower()
        _check_length(len(word), body)
        data = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
        payload, crc = data[:-_CRC_SIZE], data[-_CRC_SIZE:]
        if crc != _crc(payload) or _base32(data) != body:
            raise _invalid("the checksum does not fit: a character is mistyped or two are swapped")
        return cls._from_payload(payload)

    @classmethod
    def _from_payload(cls, payload: bytes) -> "NetworkId":
        header = payload[0]
        try:
            mode = Mode(header >> 5)
        except ValueError:
            raise _invalid(f"mode {header >> 5} is not known to this program: update dhtvpn") from None
        ipv4 = None
        if header & 31:
            try:
                ipv4 = IPv4Network((payload[65:69], header & 31))
                _check_ipv4(ipv4)
            except (ValueError, UsageError) as error:
                raise _invalid(f"it carries an IPv4 network that cannot be used ({error})") from None
        return cls(mode, payload[1:33], payload[33:65], ipv4)


def create(
    random_bytes: Callable[[int], bytes], mode: Mode = Mode.OPEN, ipv4: IPv4Network | str | None = None
) -> tuple[NetworkId, bytes]:
    """A new network and the 32-byte seed of its signing key, which only the creator keeps.

    Raises UsageError for an ``ipv4`` that cannot be the network's (see :func:`parse_ipv4`).
    """
    if isinstance(ipv4, str):
        ipv4 = parse_ipv4(ipv4)
    seed = random_bytes(KEY_SIZE)
    public_key = bytes(SigningKey(seed).verify_key)
    return NetworkId(mode, public_key, random_bytes(SECRET_SIZE), ipv4), seed


def parse_ipv4(text: str) -> IPv4Network:
    """The overlay network that a person typed as CIDR.

    Raises UsageError unless it is private or shared IPv4 space with a prefix length of 8 to 29.
    """
    try:
        network = IPv4Network(text.strip(), strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise UsageError(f"{text!r} is not an IPv4 network: write it like 10.77.0.0/16") from None
    _check_ipv4(network)
    if text.strip().partition("/")[0] != str(network.network_address):
        raise UsageError(f"{text!r} names an address inside a network: did you mean {network}?")
    return network


def _check_ipv4(network: IPv4Network) -> None:
    if not MIN_PREFIX_LENGTH <= network.prefixlen <= MAX_PREFIX_LENGTH:
        raise UsageError(
            f"{network} has a prefix length of {network.prefixlen}: "
            f"it must be from {MIN_PREFIX_LENGTH} to {MAX_PREFIX_LENGTH}"
        )
    if not any(network.subnet_of(space) for space in IPV4_SPACES):
        spaces = ", ".join(str(space) for space in IPV4_SPACES)
        raise UsageError(f"{network} is not private address space: it must lie inside one of {spaces}")


def _check_prefix(word: str) -> None:
    if not word:
        raise _invalid("it is empty")
    start = word[: len(PREFIX)].lower()
    if start == PREFIX:
        return
    if start.startswith("dv") and start[2:].isascii() and start[2:].isdigit():
        raise _invalid(f"version {start} is not known to this program: update dhtvpn")
    raise _invalid(f"it does not start with {PREFIX}")


def _check_characters(word: str) -> None:
    for position, character in enumerate(word[: 2 * MAX_LENGTH], 1):
        # Kelvin sign and its like become ASCII in lower(): look at the character before.
        if position > len(PREFIX) and not (character.isascii() and character.lower() in _ALPHABET):
            raise _invalid(
                f"the {_ordinal(position)} character {_shown(character)} cannot occur in a network-id "
                "(only letters a-z and digits 2-7)"
            )


def _check_length(length: int, body: str) -> None:
    header = base64.b32decode(body[:8].ljust(8, "a").upper())[0]
    expected = _LENGTH_WITH_IPV4 if header & 31 else _LENGTH
    if length < expected:
        raise _invalid(f"it is {_characters(expected - length)} short")
    if length > expected:
        raise _invalid(f"it is {_characters(length - expected)} too long")


def _shown(character: str) -> str:
    """The character as a person can find it, and its class."""
    if character.isspace():
        return "(white space)"
    if character.isdecimal():
        return f"{character!r} (a digit)"
    if character.isalpha():
        return f"{character!r} (a letter)"
    if character.isprintable():
        return f"{character!r} (a sign)"
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'invisible').lower()})"


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _characters(number: int) -> str:
    return "1 character" if number == 1 else f"{number} characters"


def _invalid(reason: str) -> InvalidNetworkIdError:
    return InvalidNetworkIdError(f"this is not a valid network-id: {reason}")


def _crc(payload: bytes) -> bytes:
    return zlib.crc32(payload, _CRC_START).to_bytes(_CRC_SIZE, "little")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()
