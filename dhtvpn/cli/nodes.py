"""Which nodes run on this machine, and which of them a command means."""

from pathlib import Path

from dhtvpn.cli.options import Session
from dhtvpn.control.client import ControlClient, listening_process, not_permitted
from dhtvpn.errors import DhtVpnError, NotRunningError, UsageError
from dhtvpn.networks import SYSTEM_STATE_DIR, socket_path


def running_process(chosen: Session, name: str) -> int | None:
    """The process id of the node of network ``name`` under the chosen state directory, or None."""
    return listening_process(socket_path(chosen.state_dir, name))


def node_for(chosen: Session) -> ControlClient:
    """The node that the command means: the one named by --network, else the only one that runs.

    Raises UsageError when several run and none is named, NotFoundError, NotRunningError,
    SystemRefusedError when we may not ask.
    """
    if chosen.network is not None:
        return _named(chosen, chosen.network)
    live = _live_sockets(chosen)
    if len(live) > 1:
        names = ", ".join(path.stem for path in live)
        raise UsageError(f"several networks are running here ({names}): say which with --network NAME")
    if not live:
        raise NotRunningError(_nothing_runs(chosen))
    return ControlClient(live[0])


def running_nodes(chosen: Session) -> list[tuple[str, int | None, int | None, str | None]]:
    """Every node that runs here: its network, process id, UDP port and interface; None for what it does not
    tell us. Never raises: a node that we may not ask runs all the same."""
    try:
        live = _live_sockets(chosen)
    except DhtVpnError:
        return []
    found = []
    for path in live:
        try:
            node = ControlClient(path).status()["node"]
        except DhtVpnError:
            node = {}
        found.append((path.stem, listening_process(path), node.get("udp_port"), node.get("interface")))
    return found


def _named(chosen: Session, name: str) -> ControlClient:
    """By its socket first: a member of the group may use that without reading root's networks."""
    directories = _state_dirs(chosen)
    for directory in directories:
        path = socket_path(directory, name)
        if _socket_exists(path):
            return ControlClient(path)
    known = chosen.store.find(name)
    return ControlClient(socket_path(chosen.state_dir, known.name))


def _live_sockets(chosen: Session) -> list[Path]:
    live: list[Path] = []
    for directory in _state_dirs(chosen):
        run = directory / "run"
        try:
            sockets = sorted(path for path in run.iterdir() if path.suffix == ".sock")
        except FileNotFoundError:
            continue
        except PermissionError:
            raise not_permitted(run) from None
        live += [path for path in sockets if listening_process(path) is not None]
    return live


def _state_dirs(chosen: Session) -> list[Path]:
    """The chosen directory; a user who named none also means the nodes that root started."""
    directories = [chosen.state_dir]
    if not chosen.chosen and chosen.state_dir != SYSTEM_STATE_DIR:
        directories.append(SYSTEM_STATE_DIR)
    return directories


def _socket_exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise not_permitted(path) from None


def _nothing_runs(chosen: Session) -> str:
    try:
        names = [network.name for network in chosen.store.list()]
    except DhtVpnError:
        names = []
    if names:
        return f"no network is running here: start one with 'sudo dhtvpn join NAME' ({', '.join(names)})"
    return (
        f"no network is running here and none is known in {chosen.state_dir}: "
        "start with 'dhtvpn create NAME' or 'sudo dhtvpn join NETWORK_ID'"
    )
