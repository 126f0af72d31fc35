"""What the engine asks of a TUN device, and the one that an inherited descriptor is."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Device(Protocol):
    """One call is one IP packet, as a vector of buffers. Neither call blocks: BlockingIOError instead."""

    @property
    def readv(self) -> Callable[[Sequence[bytearray | memoryview]], int]:
        """Read a packet that this machine sends and tell its length; what does not fit is cut off."""

    @property
    def writev(self) -> Callable[[Sequence[Buffer]], int]:
        """Hand a packet to this machine. OSError where it is no packet, or the device is down."""


class DescriptorDevice:
    """A TUN device by its descriptor, which stays the caller's to close."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        # the C functions themselves: a method of ours would double the cost of a call
        self.readv: Callable[[Sequence[bytearray | memoryview]], int] = partial(os.readv, descriptor)
        self.writev: Callable[[Sequence[Buffer]], int] = partial(os.writev, descriptor)
