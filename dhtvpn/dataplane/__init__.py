"""The data plane: a process of its own that moves packets between the TUN device and the UDP sockets.

``process`` and ``starter`` are the control side's handles; everything else runs in the engine, or in the
process that engines are forked from (``nursery``, started as ``python -m dhtvpn.dataplane``).
The path of a packet that leaves: device -> outbound -> peer by allowed IPs -> sealed -> socket. The path of
one that arrives: socket -> inbound -> peer by receiver index -> opened -> delivery -> allowed IPs -> device.
"""
