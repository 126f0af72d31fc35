"""One contract for every device: python-pytun's, the one by hand, and the one in memory.

The kernel's devices are made in a network namespace that belongs to one thread and ends with it.
"""

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines_in_memory import ipv4

from dhtvpn.errors import SystemRefusedError, UsageError
from dhtvpn.system import tun
from dhtvpn.system.privileges import has_net_admin

CLONE_NEWNET = 0x40000000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8913, 0x8914
IFF_UP = 1
QUIET = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")  # that of the thread's own namespace

kernel = [pytest.mark.netns, pytest.mark.skipif(not has_net_admin(), reason="needs root")]
OPENERS = [
    pytest.param("_open_by_ioctl", marks=kernel),
    pytest.param(
        "_open_by_pytun", marks=[*kernel, pytest.mark.skipif(tun.pytun is None, reason="no pytun here")]
    ),
]


def in_own_network(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread with a network namespace of its own."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            if QUIET.exists():  # no router solicitations between what the test sends
                QUIET.write_text("1")
            work()
        except BaseException as error:  # handed to the test
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def bring_up(name: str, address: str) -> None:
    """Address with a /24, and up: by ioctl, because netlink belongs to another module's tests."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            fields = struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, fields)
        fields = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH14x", name.encode(), 0))
        (flags,) = struct.unpack_from("H", fields, 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | IFF_UP))


def check_contract(
    device: Any, host_sends: Callable[[bytes], None], host_received: Callable[[], bytes]
) -> None:
    """What the engine relies on. The host has 10.77.0.1 and sends UDP to 10.77.0.2."""
    big, small = bytearray(2000), bytearray(22)
    with pytest.raises(BlockingIOError):
        device.readv([big])
    host_sends(b"payload")
    size = device.readv([big])
    assert bytes(big[:size])[-7:] == b"payload" and big[0] == 0x45 and size == 35
    host_sends(b"payload")
    assert device.readv([small]) == 22  # cut off, not an error
    with pytest.raises(BlockingIOError):
        device.readv([big])
    host_sends(b"payload")
    assert device.readv([small, big]) == 35  # a vector is one packet
    body = struct.pack("!HHHH", 7, 5000, 8 + 6, 0) + b"answer"
    packet = ipv4("10.77.0.2", "10.77.0.1", body)
    assert device.writev([packet[:20], memoryview(packet)[20:]]) == len(packet)
    assert host_received().endswith(b"answer")
    with pytest.raises(OSError, match="Invalid argument"):
        device.writev([b"\0" * 40])


def test_memory_device() -> None:
    device = tun.MemoryTun()
    body = struct.pack("!HHHH", 5000, 7, 15, 0)
    check_contract(
        device,
        lambda data: device.sent_by_host.append(ipv4("10.77.0.1", "10.77.0.2", body + data)),
        lambda: device.received_by_host[-1],
    )


def test_memory_device_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun, "MEMORY_QUEUE_MAX", 1)
    device = tun.MemoryTun()
    device.writev([b"\x45"])
    with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
        device.writev([b"\x45"])


@pytest.mark.parametrize("opener", OPENERS)
def test_kernel_device(opener: str) -> None:
    def work() -> None:
        device = getattr(tun, opener)("dhtvpn-test%d", False)
        assert device.name == "dhtvpn-test0"
        assert not os.get_inheritable(device.fileno())
        bring_up(device.name, "10.77.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
            host.bind(("10.77.0.1", 5000))
            host.settimeout(5)

            def host_sends(data: bytes) -> None:
                host.sendto(data, ("10.77.0.2", 7))
                assert select.select([device.fileno()], [], [], 5)[0]

            check_contract(device, host_sends, lambda: host.recv(100))
        device.close()
        device.close()
        with pytest.raises(OSError, match="no interface with this name"):
            socket.if_nametoindex("dhtvpn-test0")

    in_own_network(work)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_name_that_is_taken_is_refused(opener: str) -> None:
    def work() -> None:
        device = getattr(tun, opener)("dhtvpn-test1", False)
        for name in ("dhtvpn-test1", "lo"):
            with pytest.raises(SystemRefusedError, match=r"taken.*--interface"):
                getattr(tun, opener)(name, False)
        device.close()

    in_own_network(work)


@pytest.mark.parametrize("name", ["", "x" * 16, "ä" * 8, "a/b", "a b", "a:b", "..", "a\0b"])
def test_names_that_no_device_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="interface name"):
        tun.open_tun(name)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOENT, "modprobe tun"),
        (errno.ENODEV, "modprobe tun"),
        (errno.EPERM, "sudo"),
        (errno.EACCES, "sudo"),
        (errno.EBUSY, "--interface"),
        (errno.ENOMEM, "Cannot allocate"),
    ],
)
def test_refusals_say_what_to_do(code: int, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tun, "pytun", None)
    monkeypatch.setattr(tun.os, "open", refuse)
    with pytest.raises(SystemRefusedError, match=sentence):
        tun.open_tun("dhtvpn-test2")
