"""What a session of libtorrent is told so that it is a DHT node and nothing else. Only here is it imported.

No torrent is ever made, nobody is told a name, and what libtorrent does unasked is turned off.
"""

import importlib
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError

MAX_ALERTS: Final = 2000
"""Messages that libtorrent keeps for us; of more it says only that there were."""

_MAX_DESCRIPTORS: Final = 1024

_QUIET: Final[Mapping[str, object]] = {
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_tcp": False,
    "enable_outgoing_tcp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "user_agent": "",
    "peer_fingerprint": "",
    "handshake_client_version": "",
    "announce_to_all_trackers": False,
    "aio_threads": 1,
    "hashing_threads": 0,
    "alert_queue_size": MAX_ALERTS,
}
_OPEN_TO_ANY_ADDRESS: Final[Mapping[str, object]] = {
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_enforce_node_id": False,
    "dht_ignore_dark_internet": False,
    "dht_block_ratelimit": 1_000_000,  # messages per second and address: all of them have the same
    "dht_upload_rate_limit": 10_000_000,
}


def load() -> Any:
    """The module libtorrent. Raises SystemRefusedError that says how to get it."""
    try:
        return importlib.import_module("libtorrent")
    except ImportError as error:
        raise SystemRefusedError(
            f"mainline needs libtorrent, which cannot be loaded ({error}): pip install 'dhtvpn[mainline]'; "
            "there are wheels for CPython 3.11 to 3.13 on x86-64, and for few others"
        ) from error


def settings(
    libtorrent: Any, listen: Sequence[str], routers: Iterable[Endpoint], *, read_only: bool, restricted: bool
) -> dict[str, object]:
    """What ``libtorrent.session`` takes; see MainlineSession.open for the words."""
    categories = libtorrent.alert.category_t
    mask = categories.dht_notification | categories.status_notification | categories.error_notification
    return {
        **_QUIET,
        **({} if restricted else _OPEN_TO_ANY_ADDRESS),
        "dht_read_only": read_only,
        "dht_bootstrap_nodes": ",".join(str(router) for router in routers),  # never empty by default
        "listen_interfaces": interfaces(listen),
        "alert_mask": int(mask),
    }


def interfaces(addresses: Sequence[str]) -> str:
    """A free port on each address, as the setting ``listen_interfaces`` has it."""
    return ",".join(str(Endpoint(address, 0)) for address in addresses)


def end_tcp_listeners(port: int) -> None:
    """libtorrent listens on TCP too, whatever it is told; nobody has any business there."""
    for descriptor in range(3, _MAX_DESCRIPTORS):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                _end_tcp_listener(descriptor, port)
        except OSError:
            continue


def _end_tcp_listener(descriptor: int, port: int) -> None:
    """Raises OSError for what is no socket with these options."""
    sock = socket.socket(fileno=os.dup(descriptor))
    with sock:
        internet = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
        listens = internet and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and sock.getsockname()[1] == port:
            sock.shutdown(socket.SHUT_RDWR)
