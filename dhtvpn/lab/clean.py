"""Remove laboratories: their processes, namespaces, and files."""

import signal
from collections.abc import Sequence
from pathlib import Path

from dhtvpn.errors import SystemRefusedError
from dhtvpn.lab import namespaces, register
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.register import REGISTER, Entry


def tear_down(entry: Entry, machines: Sequence[Machine]) -> None:
    """Remove a laboratory of this process, with the children that its machines have started. Safe to
    repeat. A signal that comes meanwhile waits until all is done.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        for machine in machines:
            machine.terminate_children()
        try:
            remove_laboratory(entry)
        finally:
            for machine in machines:
                machine.collect_children()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def remove_laboratory(entry: Entry) -> list[int]:
    """Remove one laboratory and return the ids of the processes that were ended.

    Whatever cannot be removed is reported after the rest has gone: raises SystemRefusedError, and
    the register entry stays, so that the next clean tries again.
    """
    own = [name for name in namespaces.all_of_ours() if name.startswith(entry.prefix)]
    complaints = []
    ended: list[int] = []
    try:
        ended = namespaces.end_processes(own)
    except SystemRefusedError as error:
        complaints.append(str(error))
    for namespace in own:
        try:
            namespaces.delete(namespace)
        except SystemRefusedError as error:
            complaints.append(str(error))
    if complaints:
        raise SystemRefusedError("; ".join(complaints))
    register.remove(entry)
    return ended


def removable(include_running: bool = False, register_directory: Path = REGISTER) -> list[Entry]:
    """Laboratories that a clean would remove: those whose owner has gone, or all."""
    return [entry for entry in register.entries(register_directory) if include_running or not entry.running]


def orphaned_namespaces(register_directory: Path = REGISTER) -> list[str]:
    """Namespaces with a name of ours that no entry stands for, as after the register was wiped."""
    tags = {entry.tag for entry in register.entries(register_directory)}
    orphans = []
    for name in namespaces.all_of_ours():
        match = namespaces.NAME.fullmatch(name)
        if match is not None and match[1] not in tags:
            orphans.append(name)
    return orphans


def remove_orphans(orphans: list[str]) -> None:
    """Remove namespaces that no entry stands for, with what runs in them."""
    namespaces.end_processes(orphans)
    for namespace in orphans:
        namespaces.delete(namespace)
