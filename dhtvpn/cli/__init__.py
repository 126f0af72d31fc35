"""The ``dhtvpn`` command: one file per group of commands, loaded when that command is used."""
