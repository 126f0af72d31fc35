"""The local API of one running node: HTTP with JSON over a Unix socket (docs/local-api.md).

``schema`` says what goes over it, ``server`` serves it from a ``NodeApi``, ``client`` asks for it.
"""
