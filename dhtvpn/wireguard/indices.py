"""The index table: which peer a receiver index names.

The upper 16 bits of all indices of one table are the same, drawn once: a stranger that does not know them
is told apart by the kernel, before a process of ours wakes up. The lower 16 are random for each, so that an
index says nothing of the one before it.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class IndexTable(Generic[T]):
    """32-bit indices and their owners. An owner gives back what it no longer uses."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._owners: dict[int, T] = {}
        self.tag = int.from_bytes(random_bytes(4), "little") >> 16
        """The upper 16 bits of every index."""

    def __len__(self) -> int:
        return len(self._owners)

    def allocate(self, owner: T) -> int:
        """A fresh index that names ``owner``."""
        if len(self._owners) > 0xFFFF:
            raise RuntimeError("more indices in use than MAX_PEERS peers can have")
        index = self.tag << 16 | int.from_bytes(self._random_bytes(4), "little") & 0xFFFF
        while index in self._owners:
            index = self.tag << 16 | (index + 1) & 0xFFFF
        self._owners[index] = owner
        return index

    def release(self, index: int) -> None:
        """Make an index void; an unknown one is ignored."""
        self._owners.pop(index, None)

    def owner(self, index: int) -> T | None:
        return self._owners.get(index)
