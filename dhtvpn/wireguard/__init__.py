"""The WireGuard core: handshake, keypairs, timers and data messages of the tunnel, as on the wire.

Pure: no socket, no clock, no entropy. Time comes in as ``now`` (monotonic seconds) and ``unix_time``,
randomness as a callable. ``device`` is the way in for the control process, ``transport`` for the engine;
docs/protocol/tunnel.md is the page. Section numbers are those of J. A. Donenfeld, "WireGuard: Next
Generation Kernel Network Tunnel" (the paper).
"""
