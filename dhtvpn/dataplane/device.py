"""What the engine asks of a TUN device, and the one that an inherited descriptor is."""

import fcntl
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

Buffer = bytes | bytearray | memoryview

_TUNSETOFFLOAD: Final = 0x400454D0  # linux/if_tun.h
_TUNGETIFF: Final = 0x800454D2
_IFF_VNET_HDR: Final = 0x4000
_CSUM, _TSO4, _TSO6, _TSO_ECN, _USO4, _USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40


class Device(Protocol):
    """One call is one IP packet, as a vector of buffers. Neither call blocks: BlockingIOError instead.

    With ``vnet_header`` a virtio header (``packet.virtio``) stands before every packet, both ways, and
    ``offloads`` names what it may say.
    """

    vnet_header: bool
    offloads: tuple[str, ...]

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
        self.vnet_header = _has_vnet_header(descriptor)
        self.offloads = _ask_for_offloads(descriptor) if self.vnet_header else ()
        # the C functions themselves: a method of ours would double the cost of a call
        self.readv: Callable[[Sequence[bytearray | memoryview]], int] = partial(os.readv, descriptor)
        self.writev: Callable[[Sequence[Buffer]], int] = partial(os.writev, descriptor)


def _has_vnet_header(descriptor: int) -> bool:
    try:
        answer = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(40))
    except OSError:
        return False
    return bool(int.from_bytes(answer[16:18], "little") & _IFF_VNET_HDR)


def _ask_for_offloads(descriptor: int) -> tuple[str, ...]:
    """Have the device hand over super-packets, as many kinds as this kernel knows (UDP since 6.2)."""
    tcp = _CSUM | _TSO4 | _TSO6 | _TSO_ECN
    for flags, names in ((tcp | _USO4 | _USO6, ("tso4", "tso6", "uso")), (tcp, ("tso4", "tso6"))):
        try:
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, flags)
        except OSError:
            continue
        return ("vnet_header", *names)
    return ("vnet_header",)
