"""``dhtvpn netcheck``: what this machine's network lets a node do, found out without joining a network.

``report`` is what was found, ``verdict`` with whom direct paths can be had, ``meaning`` what it comes to for
a person; these are pure. The other modules find out: ``contacts`` and ``names`` whom to ask, ``outside`` how
strangers see us, ``directory`` the DHT, ``routers`` port mapping, ``machine`` this machine itself; ``run``
does it all at once within a few seconds, and ``document`` is its JSON.
"""
