"""The index table: which peer a receiver index names. Indices are random: they tell a stranger nothing."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class IndexTable(Generic[T]):
    """32-bit indices and their owners. An owner gives back what it no longer uses."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._owners: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def allocate(self, owner: T) -> int:
        """A fresh index that names ``owner``."""
        index = int.from_bytes(self._random_bytes(4), "little")
        while index in self._owners:
            index = (index + 1) & 0xFFFFFFFF
        self._owners[index] = owner
        return index

    def release(self, index: int) -> None:
        """Make an index void; an unknown one is ignored."""
        self._owners.pop(index, None)

    def owner(self, index: int) -> T | None:
        return self._owners.get(index)
