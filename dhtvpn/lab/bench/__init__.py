"""The bench: dhtvpn and other tunnels measured against each other on one machine.

``pair`` makes the two namespaces that each tunnel gets, ``link`` the link that loses and delays;
``tunnels`` and its siblings bring each program up; ``measurements`` are taken in the order that
``schedule`` gives; ``report`` prints. ``run`` ties them together.
"""
