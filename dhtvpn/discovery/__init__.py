"""Discovery: where nodes leave their sealed records and find those of others (asyncio).

``directory.py`` is the protocol that the rest of the program sees. ``kademlia.py`` keeps it with a
Kademlia network on the node's shared UDP port, ``memory.py`` with a dictionary, for tests.
``remembered.py`` keeps contacts and peers on disk. The datagrams are in ``docs/protocol/dht.md``.
"""
