"""The NAT laboratory: routers, NATs, a public segment and dhtvpn nodes in network namespaces.

``topology`` says what is to be built in RFC 4787's words, ``addressing`` and ``nft`` turn it into
addresses and rules (all three pure), ``network`` brings it up, ``experiment`` runs members in it.
``bench`` compares tunnels.
"""
