"""``dhtvpn netcheck``: what this machine's network lets a node do, found out without joining a network.

``report`` is what was found, ``meaning`` what it comes to for a person; both are pure. The other modules find
out: ``contacts`` whom to ask, ``outside`` how strangers see us, ``directory`` the DHT, ``routers`` port
mapping, ``machine`` this machine itself; ``run`` does it all at once within a few seconds.
"""
