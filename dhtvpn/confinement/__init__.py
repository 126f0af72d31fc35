"""Giving up what a process does not need any more: root, capabilities, the file system, system calls.

``process`` confines a process that goes on running. ``account`` chooses its user, ``kernel`` has the calls
for capabilities, ``landlock`` (with ``places``) is for the file system, ``system_calls`` for the rest.
Everything here concerns the calling thread, so it comes before a process has a second one.
"""
