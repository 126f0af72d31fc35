"""Virtual time for tests: the simulation's event loop, whose clock jumps to the next timer."""

from dhtvpn.lab.simulation.virtual_time import GIVE_UP_S, VirtualTimeLoop, run

__all__ = ["GIVE_UP_S", "VirtualTimeLoop", "run"]
