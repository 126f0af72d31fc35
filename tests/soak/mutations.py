"""Damage to datagrams that were right: what a mutated one has in common with them gets it past the first
checks, and what is repaired afterwards (lengths, MACs) past the next."""

import random
import struct
from collections.abc import Callable

INTERESTING = (0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF, 0xC1, 0xD7, 0x21, 0x45, 0x60)
LONGEST = 2048

Change = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.choice(INTERESTING)


def number(data: bytearray, rng: random.Random) -> None:
    """A length or a count that is off."""
    at = rng.randrange(len(data))
    value = rng.choice((0, 1, 0xFFFF, 0x8000, len(data), len(data) - at, rng.getrandbits(16)))
    data[at : at + 2] = struct.pack(rng.choice((">H", "<H")), value & 0xFFFF)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 16)]


def insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.randint(1, 16))


def repeat(data: bytearray, rng: random.Random) -> None:
    at, size = rng.randrange(len(data)), rng.randint(1, 64)
    data[at:at] = data[at : at + size]


def lengthen(data: bytearray, rng: random.Random) -> None:
    data.extend(rng.randbytes(rng.randint(1, 300)))


def noise(data: bytearray, rng: random.Random) -> None:
    at, size = rng.randrange(len(data)), rng.randint(1, 32)
    data[at : at + size] = rng.randbytes(size)


CHANGES: tuple[Change, ...] = (flip, flip, overwrite, overwrite, number, cut, remove, insert, repeat, noise)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` with up to four changes; one in sixteen stays as it is, another gets a tail."""
    kind = rng.getrandbits(4)
    if kind == 0 or not data:
        return data
    changed = bytearray(data)
    if kind == 1:
        lengthen(changed, rng)
    else:
        for _ in range(1 + (kind & 3)):
            rng.choice(CHANGES)(changed, rng)
            if not changed:
                break
    return bytes(changed[:LONGEST])
