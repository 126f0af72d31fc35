"""Confine a process that goes on: another user where there is one, few capabilities, few places to read.

Every step is tried on its own. One that the system refuses is logged and told in ``dhtvpn status``; the
process goes on with what it could not give up (docs/threat-model.md says what that means).
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dhtvpn.confinement import kernel, landlock, system_calls
from dhtvpn.confinement.account import Account

log = logging.getLogger(__name__)

_CAPABILITY_NAMES: Final = {kernel.CAP_NET_ADMIN: "net_admin"}


@dataclass(frozen=True)
class Confinement:
    """What a process is now. ``not_dropped`` has a few words for each step that the system refused."""

    user: int
    capabilities: tuple[str, ...]
    file_system: bool
    """Only named places of it can be reached (Landlock)."""
    system_calls: bool
    """Those that nothing here needs are refused (seccomp)."""
    not_dropped: tuple[str, ...]


def confine(
    who: Account | None,
    capabilities: Sequence[int],
    places: Sequence[tuple[Path, int]],
    *,
    tcp_ports: Sequence[int] = (),
) -> Confinement:
    """Be ``who`` (None: the same user as before) with ``capabilities`` only, in ``places`` only, for good.

    ``places`` are paths with rights of ``landlock``; ``tcp_ports`` may be bound, 0 being any free one.
    Before the process has a second thread.
    """
    steps: list[tuple[str, Callable[[], None]]] = [
        ("what other threads hold", _alone),
        ("the bounding set of capabilities", lambda: kernel.bound_to(*capabilities)),
        ("capabilities", lambda: kernel.keep_only(*capabilities)),
        ("new privileges", kernel.no_new_privileges),
        ("core dumps and tracing", kernel.no_core_no_tracing),
        ("the file system", lambda: landlock.restrict(places, tcp_ports)),
        ("system calls", system_calls.restrict),
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
        system_calls="system calls" not in refused,
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
