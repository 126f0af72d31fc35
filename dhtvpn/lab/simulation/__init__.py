"""The directory on a simulated internet: thousands of nodes in one process, in virtual time, from one seed.

Every node is the production code (``KademliaDirectory`` and what it is made of, ``Announcer``, ``Finder``);
only the port and the clock are replaced. ``internet`` carries the datagrams, ``population`` are the nodes
that store for others, ``hostile`` those that lie, ``lookups`` and ``rest`` the experiments, ``limits``
what must hold. docs/simulation.md says how to read the figures.
"""
