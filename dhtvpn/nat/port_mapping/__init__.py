"""Port mapping: asks the home router to forward the node's UDP port (docs/protocol/port-mapping.md).

``pcp_messages``, ``natpmp_messages``, ``ssdp``, ``description``, ``soap`` and ``http`` read and write bytes
and know no socket; ``pcp``, ``natpmp`` and ``upnp`` are the three ways to ask; ``keeper`` keeps one mapping,
``mapper`` all of a node's; ``sockets`` is the only one that touches the network.
"""
