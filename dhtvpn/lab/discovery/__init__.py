"""How fast members are found: the real directory between real NATs at internet distances, and on loopback."""
