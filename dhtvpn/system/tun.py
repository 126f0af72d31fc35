"""The TUN device: one read is one IP packet that this machine sends, one write is one that it receives.

python-pytun opens the device where it is installed, an ioctl by hand elsewhere; both end as a plain
descriptor, which is all that the engine needs. :class:`MemoryTun` is the same device without a kernel.
"""

import errno
import fcntl
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn

from dhtvpn.errors import SystemRefusedError, UsageError

try:
    import pytun
except ImportError:  # wheels exist for x86_64 only
    pytun = None

DEVICE_PATH: Final = "/dev/net/tun"
NAME_MAX: Final = 15  # bytes: IFNAMSIZ less the NUL, linux/if.h
MEMORY_QUEUE_MAX: Final = 512  # packets, about a device's own queue (txqueuelen 500)

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_VNET_HEADER = 10  # bytes: linux/virtio_net.h
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x1, 0x1000, 0x4000, 0x8000

Buffer = bytes | bytearray | memoryview


class Tun:
    """A TUN device of the kernel's. It exists as long as a descriptor of it is open in any process.

    ``readv`` reads one packet that this machine sends into the buffers, ``writev`` hands it one; both tell
    the length and never block (BlockingIOError). What does not fit the buffers is cut off; OSError where
    the bytes are no packet or the device is down.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.fd = descriptor
        self.name = name
        self.readv: Callable[[Sequence[bytearray | memoryview]], int] = partial(os.readv, descriptor)
        self.writev: Callable[[Sequence[Buffer]], int] = partial(os.writev, descriptor)

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        """Close our descriptor. Safe to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class MemoryTun:
    """A device in memory: ``sent_by_host`` is what the machine sends, ``received_by_host`` what it got.

    With ``vnet_header`` all of them begin with the 10 bytes of a virtio header.
    """

    def __init__(self, name: str = "memory0", vnet_header: bool = False) -> None:
        self.name = name
        self.vnet_header = vnet_header
        self.offloads: tuple[str, ...] = ("vnet_header", "tso4", "tso6", "uso") if vnet_header else ()
        self.sent_by_host: deque[bytes] = deque()
        self.received_by_host: list[bytes] = []

    def readv(self, buffers: Sequence[bytearray | memoryview]) -> int:
        if not self.sent_by_host:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        packet, done = self.sent_by_host.popleft(), 0
        for buffer in buffers:
            part = packet[done : done + len(buffer)]
            buffer[: len(part)] = part
            done += len(part)
        return done

    def writev(self, buffers: Sequence[Buffer]) -> int:
        packet = b"".join(buffers)
        start = _VNET_HEADER if self.vnet_header else 0
        if len(packet) <= start or packet[start] >> 4 not in (4, 6):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if len(self.received_by_host) >= MEMORY_QUEUE_MAX:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        self.received_by_host.append(packet)
        return len(packet)


def open_tun(name: str, vnet_header: bool = False) -> Tun:
    """Make the TUN device ``name`` (a "%d" in it becomes the first free number) and open it, non-blocking.

    ``vnet_header``: every packet stands behind a virtio header of 10 bytes.
    Raises UsageError for a name that no device can have, SystemRefusedError where it is taken, where
    there is no /dev/net/tun, and where we lack the privilege.
    """
    _check_name(name)
    opener = _open_by_pytun if pytun is not None else _open_by_ioctl
    return opener(name, vnet_header)


def _check_name(name: str) -> None:
    encoded = name.encode()
    if not 1 <= len(encoded) <= NAME_MAX:
        raise UsageError(f"the interface name {name!r} must have 1 to {NAME_MAX} bytes")
    if name in (".", "..") or any(c in "/:" or c.isspace() or not c.isprintable() for c in name):
        raise UsageError(f"the interface name {name!r} holds a character that Linux does not allow there")


def _flags(vnet_header: bool) -> int:
    # IFF_TUN_EXCL: never attach to a device that somebody else made
    return _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_VNET_HDR if vnet_header else 0)


def _open_by_pytun(name: str, vnet_header: bool) -> Tun:
    try:
        device = pytun.TunTapDevice(name=name, flags=_flags(vnet_header))
    except OSError as error:
        _refuse(name, error)
    try:
        # pytun closes its descriptor when the object goes; ours stays. dup also sets close-on-exec
        descriptor = os.dup(device.fileno())
        actual = device.name
    finally:
        device.close()
    os.set_blocking(descriptor, False)
    return Tun(descriptor, actual)


def _open_by_ioctl(name: str, vnet_header: bool) -> Tun:
    try:
        descriptor = os.open(DEVICE_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _refuse(name, error)
    try:
        answer = fcntl.ioctl(
            descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _flags(vnet_header))
        )
    except OSError as error:
        os.close(descriptor)
        _refuse(name, error)
    return Tun(descriptor, answer[:16].rstrip(b"\0").decode())


def _refuse(name: str, error: OSError) -> NoReturn:
    """Raise the sentence for a person that fits the kernel's answer."""
    if error.errno in (errno.EBUSY, errno.EEXIST):
        sentence = f"the interface name {name!r} is taken on this machine: choose another with --interface"
    elif error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        sentence = (
            f"this machine has no {DEVICE_PATH}: load the kernel module with 'modprobe tun', "
            "or give the container that device (--device /dev/net/tun)"
        )
    elif error.errno in (errno.EPERM, errno.EACCES):
        sentence = (
            "no permission to make a network device: run the command as root (sudo), "
            "or give the container CAP_NET_ADMIN and /dev/net/tun"
        )
    else:
        sentence = f"cannot make the network device {name!r}: {error.strerror or error}"
    raise SystemRefusedError(sentence) from error
