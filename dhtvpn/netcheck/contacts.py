"""Whom netcheck asks, as ``join`` does: the addresses given, and what this machine's networks remember."""

from collections.abc import Sequence
from dataclasses import dataclass

from dhtvpn.discovery.remembered import RememberedContacts, RememberedPeers
from dhtvpn.endpoint import Endpoint
from dhtvpn.networks import KnownNetwork


@dataclass(frozen=True)
class Known:
    """``names``: ``HOST:PORT`` as typed, now or at an earlier join; ``remembered``: who answered then."""

    names: tuple[str, ...]
    remembered: tuple[Endpoint, ...]


def known_contacts(given: Sequence[str], networks: Sequence[KnownNetwork]) -> Known:
    """Those given come first. Members are DHT nodes too: where they answered last comes at the end."""
    names = list(given)
    contacts: list[Endpoint] = []
    members: list[Endpoint] = []
    for network in networks:
        names += [*network.bootstrap, *network.peers]
        contacts += RememberedContacts(network.directory / "contacts.json").load()
        peers = RememberedPeers(network.directory / "peers.json").load()
        members += [endpoint for peer in peers.values() for endpoint in peer.endpoints[:1]]
    return Known(tuple(dict.fromkeys(names)), tuple(dict.fromkeys([*contacts, *members])))
