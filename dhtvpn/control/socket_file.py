"""The Unix socket of a local API: taken from a dead node, never from a live one, open to one group."""

import fcntl
import grp
import os
import socket
from contextlib import suppress
from pathlib import Path

from dhtvpn import files
from dhtvpn.control import client
from dhtvpn.errors import DhtVpnError, SystemRefusedError

GROUP = "dhtvpn"  # members of this Unix group may use the local API without root
SOCKET_BACKLOG = 64


def _group_id(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _make_run_directory(directory: Path, group_id: int | None) -> None:
    """0750 and the group's where there is one and we may give it away, else for the owner only."""
    files.make_directory(directory)
    shared = False
    if group_id is not None:
        with suppress(PermissionError):
            os.chown(directory, -1, group_id)
            shared = True
    with suppress(PermissionError):
        directory.chmod(0o750 if shared else 0o700)


def take_socket(path: Path, group: str, *, taken: str) -> socket.socket:
    """A listening socket at ``path``. The file of a dead node is replaced, that of a live one is an error.

    ``taken`` is what that error says, with ``{name}`` and ``{pid}`` in it. Members of ``group`` may connect.
    Raises DhtVpnError, SystemRefusedError.

    The look and the replacing happen under a lock on the directory (flock(2)), so of two nodes that start at
    once one wins and the other sees it listening. No lock file stays behind.
    """
    group_id = _group_id(group)
    _make_run_directory(path.parent, group_id)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (process_id := client.listening_process(path)) is not None:
                raise DhtVpnError(taken.format(name=path.stem, pid=process_id))
            path.unlink(missing_ok=True)
            _bind(listener, path, group_id)
        finally:
            os.close(lock)
    except OSError as error:
        listener.close()
        raise SystemRefusedError(f"cannot make the control socket {path} ({error.strerror})") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, path: Path, group_id: int | None) -> None:
    """Bound with its final mode, then given to the group, then listening: never open to others.

    The directory may belong to another user, who could put a link in the place of the socket: so no call
    here follows one.
    """
    shared = group_id is not None and (os.geteuid() == 0 or group_id in (os.getegid(), *os.getgroups()))
    old_umask = os.umask(0o117 if shared else 0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old_umask)
    if shared and group_id is not None:
        with suppress(PermissionError):
            os.lchown(path, -1, group_id)
    listener.listen(SOCKET_BACKLOG)
    listener.setblocking(False)
