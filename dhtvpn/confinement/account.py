"""The user that root's nodes become, and the handing over of their directories to it."""

import contextlib
import logging
import os
import pwd
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dhtvpn.confinement.places import code

log = logging.getLogger(__name__)

USER: Final = "dhtvpn"  # the system user that nodes run as, where the machine has it
_MADE_BY_US: Final = ("networks", "bootstrap")  # in STATE_DIR


@dataclass(frozen=True)
class Account:
    """A user and its own group, by number."""

    user: int
    group: int


def take_over(directories: Sequence[Path]) -> Account | None:
    """Choose the user to become, and give it ``directories`` with the files in them.

    None where this process is not root, and where it has to stay root: no such user on this machine, or
    one that cannot reach this program or the directories; then they become root's again. Raises OSError.
    """
    if os.geteuid() != 0:
        return None
    who = account()
    if who is None:
        log.info("there is no user %r on this machine: staying root, without its privileges", USER)
    else:
        _let_pass(directories)
        closed = out_of_reach(who, reading=code(), passing=directories)
        if closed is not None:
            log.warning("the user %r cannot reach %s: staying root, without its privileges", USER, closed)
            who = None
    for directory in directories:
        give(directory, 0 if who is None else who.user)
    return who


def account(name: str = USER) -> Account | None:
    """The system user ``name``; None where this machine has none, or where it is root."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid) if entry.pw_uid else None


def out_of_reach(who: Account, reading: Iterable[Path], passing: Iterable[Path]) -> Path | None:
    """The first path that ``who`` cannot get to: ``reading`` are to be read, of ``passing`` only the way
    there must be open. None where all is well. For root only."""
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(who.group)
    os.seteuid(who.user)
    try:
        wanted = [*((path, os.R_OK) for path in reading), *((path, os.F_OK) for path in passing)]
        return next((path for path, how in wanted if not os.access(path, how, effective_ids=True)), None)
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _let_pass(directories: Sequence[Path]) -> None:
    """Open what we have made above each for passing through, not for listing: it is 0700 at first."""
    for above in {directory.parent for directory in directories}:
        with contextlib.suppress(OSError):
            found = above.stat()
            if above.name in _MADE_BY_US and found.st_uid == 0 and stat.S_IMODE(found.st_mode) == 0o700:
                above.chmod(0o711)


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
