"""Giving up what a process does not need any more, by what Linux has for it: users, capabilities, Landlock.

``kernel`` has the calls, ``landlock`` the file system, ``process`` the whole for a process that goes on
running. Everything here concerns the calling thread, so it comes before a process has a second one.
"""
