"""Hand a directory of state over to the user that a process is going to be."""

import os
import stat
from pathlib import Path


def give(directory: Path, user: int) -> None:
    """Make ``user`` the owner of ``directory`` and of the plain files in it. For root. Raises OSError.

    Whoever owned the directory until now may have put anything in it: no link is followed, and what does
    not belong to that owner stays as it is.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = os.fstat(descriptor).st_uid
        if owner == user:
            return
        for name in os.listdir(descriptor):  # noqa: PTH208 - the directory that is open, whatever its name is now
            _give_file(name, descriptor, owner, user)
        os.fchown(descriptor, user, -1)
    finally:
        os.close(descriptor)


def _give_file(name: str, directory: int, owner: int, user: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_uid == owner and found.st_nlink == 1:
            os.fchown(file, user, -1)
    finally:
        os.close(file)
