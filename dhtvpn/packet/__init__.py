"""IP packets as bytes: parsed strictly, answered by ICMP. Pure: no socket, no clock, no entropy."""
