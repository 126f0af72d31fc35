"""Membership: what a network-id says, which addresses members have, and what two members share.

Pure: no socket, no file, no clock, no entropy. Randomness comes in as ``random_bytes``.
"""
