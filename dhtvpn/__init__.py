"""dhtvpn: a serverless peer-to-peer VPN.

Nodes publish signed, sealed endpoint records into a Kademlia DHT, punch through NAT with ICE, and
bring up WireGuard tunnels between each other. ``docs/architecture.md`` is the map of this package.
"""

__version__ = "0.1.0"
