"""Confine a process that goes on: another user where there is one, few capabilities, few places to read.

Every step is tried on its own. One that the system refuses is logged and told in ``dhtvpn status``; the
process goes on with what it could not give up (docs/threat-model.md says what that means).
"""

import logging
import os
import pwd
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dhtvpn.confinement import kernel, landlock

log = logging.getLogger(__name__)

USER: Final = "dhtvpn"  # the system user that nodes run as, where the machine has it
_CAPABILITY_NAMES: Final = {kernel.CAP_NET_ADMIN: "net_admin"}


@dataclass(frozen=True)
class Account:
    """A user and its own group, by number."""

    user: int
    group: int


@dataclass(frozen=True)
class Confinement:
    """What a process is now. ``not_dropped`` has a few words for each step that the system refused."""

    user: int
    capabilities: tuple[str, ...]
    file_system: bool
    """Only named places of it can be reached (Landlock)."""
    not_dropped: tuple[str, ...]


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


def confine(
    who: Account | None, capabilities: Sequence[int], places: Sequence[tuple[Path, int]]
) -> Confinement:
    """Be ``who`` (None: the same user as before) with ``capabilities`` only, in ``places`` only, for good.

    ``places`` are paths with rights of ``landlock``. Before the process has a second thread.
    """
    steps: list[tuple[str, Callable[[], None]]] = [
        ("what other threads hold", _alone),
        ("the bounding set of capabilities", lambda: kernel.bound_to(*capabilities)),
        ("capabilities", lambda: kernel.keep_only(*capabilities)),
        ("new privileges", kernel.no_new_privileges),
        ("core dumps and tracing", kernel.no_core_no_tracing),
        ("the file system", lambda: landlock.restrict(places)),
    ]
    if who is not None:
        steps.insert(2, ("root", lambda: kernel.become(who.user, who.group)))
    refused = [what for what, step in steps if not _done(what, step)]
    if os.geteuid() == 0 and "root" not in refused:
        refused.insert(0, "root")
    held = _held()
    return Confinement(
        user=os.geteuid(),
        capabilities=tuple(_CAPABILITY_NAMES.get(number, str(number)) for number in held),
        file_system="the file system" not in refused,
        not_dropped=tuple(refused),
    )


def _done(what: str, step: Callable[[], None]) -> bool:
    try:
        step()
    except OSError as error:
        log.warning("cannot give up %s (%s): going on with it", what, error.strerror)
        return False
    return True


def _alone() -> None:
    """Raises OSError where another thread runs: it has kept what this one has given up."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise OSError(0, "a thread that was there before keeps its own")


def _held() -> list[int]:
    mask = kernel.permitted()
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
