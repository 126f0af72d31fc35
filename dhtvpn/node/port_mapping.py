"""Puts a node's port mapper together: routes from netlink, real sockets, and a nonce that outlives a run."""

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from dhtvpn.drops import Drops
from dhtvpn.identity import Identity
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.port_mapping.mapper import PortMapper
from dhtvpn.nat.port_mapping.natpmp import NatPmp
from dhtvpn.nat.port_mapping.pcp import Pcp
from dhtvpn.nat.port_mapping.pcp_messages import NONCE_SIZE
from dhtvpn.nat.port_mapping.sockets import Announcements, GatewayPort, GatewayWeb, SsdpPort
from dhtvpn.nat.port_mapping.terms import Gateway, Method
from dhtvpn.nat.port_mapping.upnp import Upnp
from dhtvpn.node.config import NodeConfig
from dhtvpn.system.gateways import default_gateways

if TYPE_CHECKING:
    from dhtvpn.node.node import Node

_NONCE_DOMAIN: Final = b"dhtvpn pcp nonce"  # BLAKE2's personalisation, 16 octets


def pcp_nonce(identity: Identity, gateway: Gateway, port: int) -> bytes:
    """12 octets that nobody can foresee, the same in every run: a node that was killed finds its mapping
    under the nonce with which it was made, and no other nonce may touch it (RFC 6887 section 11.3)."""
    of_what = gateway.own.packed + port.to_bytes(2, "big")
    key, size = identity.tunnel_private_key, NONCE_SIZE
    return hashlib.blake2b(of_what, digest_size=size, key=key, person=_NONCE_DOMAIN).digest()


async def gateways_to_ask(exclude_interfaces: Collection[str] = ()) -> list[Gateway]:
    """The routers of the default routes that may translate. Raises SystemRefusedError."""
    found = [Gateway(*each) for each in await default_gateways(exclude_interfaces)]
    # with a public address there is nothing to translate, and a router of a provider's is not to be asked
    return [gateway for gateway in found if gateway.own.version == 6 or not is_public(gateway.own)]


def methods_at(
    gateway: Gateway, port: int, *, nonce: bytes, drops: Drops, random_bytes: Callable[[int], bytes]
) -> Sequence[Method]:
    """Every protocol for the UDP ``port`` at one gateway, best first; nothing is opened yet."""
    pcp = Pcp(gateway, port, GatewayPort(gateway), nonce=nonce, drops=drops, now=time.monotonic)
    if gateway.own.version == 6:  # NAT-PMP knows IPv4 only, and UPnP's pinholes are rarely offered
        return [pcp]
    web = GatewayWeb(gateway)
    return [
        pcp,
        NatPmp(port, GatewayPort(gateway), drops=drops, now=time.monotonic),
        Upnp(gateway, port, SsdpPort(gateway, drops), web, drops=drops, random_bytes=random_bytes),
    ]


def open_port_mapper(
    config: NodeConfig,
    port: int,
    interface: str,
    *,
    identity: Identity,
    say: Callable[[str, str], None],
    drops: Drops,
    random_bytes: Callable[[int], bytes],
) -> PortMapper | None:
    """For the UDP ``port``; None where the user does not want one. ``interface``: the overlay's own, whose
    routes lead to no router of ours. Nothing is opened before ``PortMapper.run``."""
    if not config.port_mapping:
        return None

    def methods(gateway: Gateway) -> Sequence[Method]:
        nonce = pcp_nonce(identity, gateway, port)
        return methods_at(gateway, port, nonce=nonce, drops=drops, random_bytes=random_bytes)

    return PortMapper(
        gateways=lambda: gateways_to_ask({interface}),
        methods=methods,
        listen=Announcements,
        fraction=lambda: int.from_bytes(random_bytes(4), "big") / (1 << 32),
        say=say,
    )


def port_mapping_document(node: "Node") -> dict[str, Any]:
    """The part ``port_mapping`` of the status document."""
    mapper = node.port_mapper
    if mapper is None:
        return {"enabled": False, "detail": "turned off", "gateways": []}
    published = {candidate.endpoint for candidate in node.surroundings.candidates()}
    return {
        "enabled": True,
        "detail": mapper.detail,
        "gateways": [
            {
                "gateway": found.gateway,
                "own": found.own,
                "protocol": found.protocol,
                "external": None if found.external is None else str(found.external),
                "published": found.external in published,
                "lifetime_left_s": None if found.lifetime_left_s is None else round(found.lifetime_left_s),
                "double_nat": found.double_nat,
                "detail": found.detail,
            }
            for found in mapper.conditions()
        ],
    }
