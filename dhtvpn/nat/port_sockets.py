"""Open the sockets of one UDP port: one per address family, and the engine's beside them.

The engine has several per family. All data messages come to the first; the others, the *lanes*, only send. A
socket may have so many bytes under way: when they stand in a queue towards one peer, peers that send on other
lanes go on.
"""

import errno
import logging
import secrets
import socket
from dataclasses import dataclass, field

from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.heard_at import tell_addresses
from dhtvpn.nat.reuseport import attach_filter
from dhtvpn.nat.socket_filter import NOTHING, attach

log = logging.getLogger(__name__)

CONTROL_BUFFER = 1 << 18
"""Bytes of kernel buffer for handshakes, STUN and DHT: a burst of some 600 datagrams. Ours: a flood fills
it, and whoever is not the flooder waits until it is read, at the pace of reading.py a quarter of a second.
That must be less than the time after which a check or a request is repeated."""

ENGINE_BUFFER = 16 << 20
"""Bytes of kernel buffer for data messages. Ours: 0.1 s at 1 Gbit/s."""

LANES = 7
"""Sockets per family that only send. Ours: with the first, eight peers have a send buffer each."""

LANE_BUFFER = 1 << 16
"""Bytes of kernel buffer for what a lane never receives."""

PORT_ATTEMPTS = 32
"""How often a port that is free on one family only is given back for another one."""

FIRST_DYNAMIC_PORT, LAST_DYNAMIC_PORT = 49152, 65535
"""RFC 6335 section 6."""

# linux/in.h, linux/in6.h, asm-generic/socket.h: not in the socket module.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT = 10, 23, 0
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPFNOSUPPORT}
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - a VPN node listens on every address of its machine
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass
class PortSockets:
    """What was opened. ``control`` and ``engine`` map 4 and 6 to a bound, non-blocking socket, ``lanes`` to
    several.

    ``kernel_demux`` says that the reuseport filter works. Without it, ``engine`` holds duplicates of the
    control sockets, which are for sending only, and there are no lanes.
    """

    port: int
    control: dict[int, socket.socket] = field(default_factory=dict)
    engine: dict[int, socket.socket] = field(default_factory=dict)
    lanes: dict[int, list[socket.socket]] = field(default_factory=dict)
    kernel_demux: bool = False

    def close(self) -> None:
        self.close_engine()
        for opened in self.control.values():
            opened.close()

    def close_engine(self) -> None:
        """Close what is there for the engine only."""
        for opened in (*self.engine.values(), *(lane for lanes in self.lanes.values() for lane in lanes)):
            opened.close()
        self.engine, self.lanes = {}, {}


def open_sockets(port: int | None, hosts: dict[int, str], tunnel_sockets: bool) -> PortSockets:
    """Bind ``port`` (None or 0: any that is free on all families) on ``hosts`` (family 4 or 6 -> address).

    A family that this machine does not have is left out. Raises SystemRefusedError: port in use, not
    allowed, address not of this machine, no family at all.
    """
    if port:
        return _open_at(port, hosts, tunnel_sockets)
    for _ in range(PORT_ATTEMPTS):
        candidate = FIRST_DYNAMIC_PORT + secrets.randbelow(LAST_DYNAMIC_PORT - FIRST_DYNAMIC_PORT + 1)
        try:
            return _open_at(candidate, hosts, tunnel_sockets)
        except _PortInUseError:
            continue
    raise SystemRefusedError(
        f"found no UDP port that is free on every address family in {PORT_ATTEMPTS} attempts: "
        "choose one with --port"
    )


class _PortInUseError(SystemRefusedError):
    pass


def _open_at(port: int, hosts: dict[int, str], tunnel_sockets: bool) -> PortSockets:
    sockets = PortSockets(port)
    try:
        for family, host in hosts.items():
            control = _bind_alone(family, host, port)
            if control is not None:
                sockets.control[family] = control
        if not sockets.control:
            raise SystemRefusedError("this machine has neither IPv4 nor IPv6: bring a network interface up")
        if tunnel_sockets:
            _add_engine_sockets(sockets, hosts)
    except BaseException:
        sockets.close()
        raise
    return sockets


def _bind_alone(family: int, host: str, port: int) -> socket.socket | None:
    """A control socket, or None where the machine does not have the family.

    It is bound without SO_REUSEPORT, so that the kernel refuses a port that another program has,
    even one that would share it.
    """
    try:
        opened = socket.socket(_FAMILIES[family], socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno in _NO_SUCH_FAMILY:
            log.info("this machine has no IPv%d: going on without", family)
            return None
        raise SystemRefusedError(f"cannot open a UDP socket ({error.strerror})") from error
    try:
        _set_options(opened, family, CONTROL_BUFFER)
        tell_addresses(opened, family)
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRNOTAVAIL and host in _WILDCARDS:
            log.info("this machine has no IPv%d: going on without", family)
            return None
        raise _refusal(error, host, port) from error
    return opened


def _add_engine_sockets(sockets: PortSockets, hosts: dict[int, str]) -> None:
    """Put a second socket behind each control socket and steer types 4 to 7 to it."""
    try:
        for family, control in sockets.control.items():
            # The exclusive bind is done; from here on the engine's socket may join. The kernel makes the
            # group when the second socket is bound, with the control socket at index 0.
            control.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sockets.engine[family] = engine = socket.socket(_FAMILIES[family], socket.SOCK_DGRAM)
            _join_group(engine, family, (hosts[family], sockets.port))
            attach_filter(control)
            for _ in range(LANES):
                lane = socket.socket(_FAMILIES[family], socket.SOCK_DGRAM)
                sockets.lanes.setdefault(family, []).append(lane)
                _join_group(lane, family, (hosts[family], sockets.port))
                attach(lane, NOTHING)
                lane.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LANE_BUFFER)
        sockets.kernel_demux = True
    except OSError as error:
        log.warning(
            "this kernel cannot steer data messages to the engine (%s): they take the way through the "
            "control process, which is slower",
            error.strerror,
        )
        sockets.close_engine()
        for control in sockets.control.values():
            _set_buffers(control, ENGINE_BUFFER)
        sockets.engine = {family: control.dup() for family, control in sockets.control.items()}


def _join_group(opened: socket.socket, family: int, address: tuple[str, int]) -> None:
    _set_options(opened, family, ENGINE_BUFFER)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind(address)


def _set_options(opened: socket.socket, family: int, buffer: int) -> None:
    opened.setblocking(False)
    if family == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Let the kernel fragment: a datagram in two pieces arrives, one that is too long is lost.
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    _set_buffers(opened, buffer)


def _set_buffers(opened: socket.socket, buffer: int) -> None:
    for forced, ordinary in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, forced, buffer)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, ordinary, buffer)


def _refusal(error: OSError, host: str, port: int) -> SystemRefusedError:
    if error.errno == errno.EADDRINUSE:
        return _PortInUseError(f"UDP port {port} is in use by another program: choose another with --port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SystemRefusedError(f"not allowed to use UDP port {port}: choose one above 1023, or be root")
    if error.errno == errno.EADDRNOTAVAIL:
        return SystemRefusedError(f"{host} is not an address of this machine, so nothing can listen on it")
    return SystemRefusedError(f"cannot listen on UDP port {port} ({error.strerror})")
