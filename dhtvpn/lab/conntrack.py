"""Make a router forget every flow, as a reboot does: one message to the kernel's connection tracking.

The message is IPCTNL_MSG_CT_DELETE without a flow in it (linux/netfilter/nfnetlink_conntrack.h), which
deletes all of the namespace. By hand, so that the laboratory does not need conntrack-tools.
"""

import os
import socket
import struct

from dhtvpn.errors import SystemRefusedError
from dhtvpn.lab import namespaces

_NETLINK_NETFILTER = 12
_CT_DELETE = 1 << 8 | 2  # subsystem ctnetlink, message delete
_REQUEST_AND_ACK = 0x01 | 0x04
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_ANSWER_TIMEOUT_S = 5.0


def flush(namespace: str) -> None:
    """Forget every flow of ``namespace``. Raises SystemRefusedError."""
    family_version_resource = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
    message = _HEADER.pack(_HEADER.size + 4, _CT_DELETE, _REQUEST_AND_ACK, 1, 0) + family_version_resource
    with namespaces.open_socket(namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(_ANSWER_TIMEOUT_S)
        try:
            netlink.sendto(message, (0, 0))
            answer = netlink.recv(4096)
        except OSError as error:
            raise SystemRefusedError(f"cannot flush connection tracking in {namespace}: {error}") from error
    kind = _HEADER.unpack_from(answer)[1]
    (result,) = struct.unpack_from("=i", answer, _HEADER.size)
    if kind != _NLMSG_ERROR or result != 0:
        raise SystemRefusedError(f"cannot flush connection tracking in {namespace}: {os.strerror(-result)}")
