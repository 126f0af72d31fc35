"""The mesh: who the peers are, what may go to and come from each, and what nodes say to each other.

Pure: no socket, no clock, no entropy. Time comes in as ``now`` (monotonic seconds).
"""
