"""Paths through NATs: the one UDP port, STUN on both of its sides, and ICE.

asyncio. Layers of this room, bottom to top: ``demux``, ``stun_messages``, ``candidates`` (pure);
``reuseport``, ``port_sockets``, ``stun_router``; ``port``; ``stun_transaction``, ``stun_service``,
``reflexive``; ``ice_checks``; ``ice``.
"""

from dhtvpn.nat import without_mdns

without_mdns.replace()
