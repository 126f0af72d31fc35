"""The networks that this machine knows, on disk: one directory each, nothing shared between them.

    STATE_DIR/                     0711: a member of the group may reach run/, and list nothing else
    ├── networks/NAME/             0700, of the user dhtvpn once a node has run where there is one
    │   └── network.json           0600: the network-id and what the user chose when joining
    └── run/NAME.sock              the control socket of a running node (made by control.server)

The network-id does not contain the network's name: a name is this machine's own word for it.
"""

import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from dhtvpn import files
from dhtvpn.choices import Discovery
from dhtvpn.errors import DamagedStateError, DhtVpnError, NotFoundError, SystemRefusedError, UsageError
from dhtvpn.membership import network_id as membership
from dhtvpn.membership.network_id import Mode, NetworkId

log = logging.getLogger(__name__)

SYSTEM_STATE_DIR = Path("/var/lib/dhtvpn")
NETWORK_FILE = "network.json"
NETWORK_FILE_VERSION = 1
NETWORK_ID_PREFIX = "dv1"
NAME_PATTERN = re.compile(r"[a-z0-9-]{1,32}")
MAX_BOOTSTRAP = 32  # ours: addresses kept per network; the oldest are forgotten first
MAX_PEERS = 32  # ours: the same for hints
STATE_DIRECTORY_MODE = 0o711
SOCKET_PATH_LIMIT = 107  # bytes: sun_path holds 108 with its closing zero (unix(7))


class Cipher(Enum):
    """What a node wants its data messages sealed with. Both ends must want AES for it to be used."""

    AUTO = "auto"
    """AES-256-GCM where this machine has AES instructions, ChaCha20-Poly1305 otherwise."""
    AES = "aes-256-gcm"
    CHACHA = "chacha20-poly1305"


@dataclass(frozen=True)
class KnownNetwork:
    """One network as this machine knows it. ``signing_seed`` (32 bytes) only where it was created."""

    name: str
    network_id: NetworkId
    directory: Path
    created_here: bool = False
    signing_seed: bytes | None = field(default=None, repr=False)
    hostname: str | None = None
    port: int | None = None
    interface: str | None = None
    cipher: Cipher | None = None
    bootstrap: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    """Hints: where members are, ``HOST:PORT`` as typed."""
    discovery: tuple[Discovery, ...] = ()
    """Sources of records; empty: the default."""
    mainline_routers: tuple[str, ...] = ()
    """Of the BitTorrent DHT, ``HOST:PORT`` as typed; empty: the public ones."""
    port_mapping: bool | None = None
    """Whether the router is asked to forward the port; None: the default."""
    relay_mbit: int | None = None
    """Relayed for other members a second; 0: nothing, None: the default."""

    def as_json(self) -> dict[str, Any]:
        """What ``network.json`` holds. It is secret: it contains the network-id."""
        return {
            "version": NETWORK_FILE_VERSION,
            "name": self.name,
            "network_id": self.network_id.encode(),
            "created_here": self.created_here,
            "signing_seed": self.signing_seed.hex() if self.signing_seed else None,
            "hostname": self.hostname,
            "port": self.port,
            "interface": self.interface,
            "cipher": self.cipher.value if self.cipher else None,
            "bootstrap": list(self.bootstrap),
            "peers": list(self.peers),
            "discovery": [source.value for source in self.discovery],
            "mainline_routers": list(self.mainline_routers),
            "port_mapping": self.port_mapping,
            "relay_mbit": self.relay_mbit,
        }


def default_state_dir() -> Path:
    """DHTVPN_STATE_DIR; else /var/lib/dhtvpn for root; else the user's state directory (XDG)."""
    if chosen := os.environ.get("DHTVPN_STATE_DIR"):
        return Path(chosen).expanduser().absolute()
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    if user_state := os.environ.get("XDG_STATE_HOME"):
        return Path(user_state).absolute() / "dhtvpn"
    return Path.home() / ".local" / "state" / "dhtvpn"


def is_network_name(text: str) -> bool:
    """Whether ``text`` may be a network's name. A name never looks like a network-id."""
    return NAME_PATTERN.fullmatch(text) is not None and not text.startswith(NETWORK_ID_PREFIX)


def check_network_name(text: str) -> str:
    """``text`` itself. Raises UsageError that says which rule it breaks."""
    if is_network_name(text):
        return text
    if text.startswith(NETWORK_ID_PREFIX):
        raise UsageError("a network's name cannot start with dv1: that is how a network-id starts")
    raise UsageError(f"{text!r} is no network name: use 1 to 32 of the characters a-z, 0-9 and -")


def default_name(network_id: NetworkId) -> str:
    """What a network is called here when nobody named it: ``net-`` and the short id's own characters."""
    return f"net-{network_id.short.removeprefix(NETWORK_ID_PREFIX).lstrip('-')}"


def socket_path(state_dir: Path, name: str) -> Path:
    """The control socket of network ``name``. Raises UsageError where the path is too long for one."""
    path = state_dir / "run" / f"{name}.sock"
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT:
        raise UsageError(
            f"{path} is {length} bytes long, and a Unix socket's path has at most {SOCKET_PATH_LIMIT}: "
            "choose a shorter --state-dir"
        )
    return path


class NetworkStore:
    """Finds, creates and remembers networks under one state directory."""

    def __init__(self, state_dir: Path, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self.state_dir = state_dir
        self._networks = state_dir / "networks"
        self._random_bytes = random_bytes

    def directory(self, name: str) -> Path:
        """Where everything about network ``name`` is kept, whether it exists yet or not."""
        return self._networks / check_network_name(name)

    def create(self, name: str, mode: Mode = Mode.OPEN, ipv4: IPv4Network | None = None) -> KnownNetwork:
        """Make a new network with keys of its own and remember it.

        Raises UsageError (name), DhtVpnError (the name is taken; nothing is changed), SystemRefusedError.
        """
        directory = self.directory(name)
        with self._locked():
            if (directory / NETWORK_FILE).exists():
                raise DhtVpnError(
                    f"there is a network named {name!r} here already ({directory}): "
                    "choose another name; nothing has been changed"
                )
            network_id, seed = membership.create(self._random_bytes, mode, ipv4)
            network = KnownNetwork(name, network_id, directory, created_here=True, signing_seed=seed)
            self._save(network)
        return network

    def remember(
        self,
        network_id: NetworkId,
        *,
        name: str | None = None,
        hostname: str | None = None,
        port: int | None = None,
        interface: str | None = None,
        cipher: Cipher | None = None,
        bootstrap: Sequence[str] = (),
        peers: Sequence[str] = (),
        discovery: Sequence[Discovery] = (),
        mainline_routers: Sequence[str] = (),
        port_mapping: bool | None = None,
        relay_mbit: int | None = None,
    ) -> KnownNetwork:
        """Keep ``network_id`` and the choices given; what is None or empty stays as it was.

        A network that is new here is called ``name``, or ``net-<short>``. Raises UsageError when
        ``name`` belongs to another network or the network has another name here.
        """
        with self._locked():
            known = self._by_id(network_id)
            if known is None:
                chosen = check_network_name(name or default_name(network_id))
                directory = self.directory(chosen)
                if (directory / NETWORK_FILE).exists():
                    self._load(directory)  # a damaged file must never be replaced by a new network
                    raise UsageError(
                        f"{chosen!r} is another network on this machine: choose a name with --network"
                    )
                known = KnownNetwork(chosen, network_id, directory)
            elif name is not None and name != known.name:
                raise UsageError(f"this network is known here as {known.name!r}, not {name!r}")
            updated = replace(
                known,
                hostname=hostname or known.hostname,
                port=port if port is not None else known.port,
                interface=interface or known.interface,
                cipher=cipher or known.cipher,
                bootstrap=tuple(dict.fromkeys((*bootstrap, *known.bootstrap)))[:MAX_BOOTSTRAP],
                peers=tuple(dict.fromkeys((*peers, *known.peers)))[:MAX_PEERS],
                discovery=tuple(discovery) or known.discovery,
                mainline_routers=tuple(mainline_routers)[:MAX_BOOTSTRAP] or known.mainline_routers,
                port_mapping=port_mapping if port_mapping is not None else known.port_mapping,
                relay_mbit=relay_mbit if relay_mbit is not None else known.relay_mbit,
            )
            self._save(updated)
        return updated

    def find(self, text: str) -> KnownNetwork:
        """A network by its name, network-id or short id.

        Raises NotFoundError, InvalidNetworkIdError (mistyped network-id), DamagedStateError.
        """
        text = text.strip()
        if is_network_name(text) and (self._networks / text / NETWORK_FILE).exists():
            return self._load(self._networks / text)
        found = next((known for known in self.list() if known.network_id.short == text), None)
        shown = text
        if found is None and text.lower().startswith(NETWORK_ID_PREFIX):
            network_id = NetworkId.decode(text)
            found = self._by_id(network_id)
            shown = network_id.short
        if found is None:
            names = ", ".join(known.name for known in self.list())
            raise NotFoundError(
                f"no network {shown!r} in {self.state_dir} "
                + (f"(known there: {names})" if names else "(none is known there yet)")
            )
        return found

    def damaged(self) -> list[DamagedStateError]:
        """One error for each network whose file cannot be read; a copy of each has been kept."""
        return self._scan()[1]

    def _scan(self) -> tuple[list[KnownNetwork], list[DamagedStateError]]:
        try:
            directories = sorted(path.parent for path in self._networks.glob(f"*/{NETWORK_FILE}"))
            # glob() hides a directory that may not be read; naming it is the point of the message
            os.scandir(self._networks).close()
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise SystemRefusedError(
                f"cannot read {self._networks} ({error.strerror}): use sudo, or another --state-dir"
            ) from error
        networks: list[KnownNetwork] = []
        damaged: list[DamagedStateError] = []
        for directory in directories:
            try:
                networks.append(self._load(directory))
            except DamagedStateError as error:
                damaged.append(error)
        return networks, damaged

    def _by_id(self, network_id: NetworkId) -> KnownNetwork | None:
        text = network_id.encode()
        return next((known for known in self.list() if known.network_id.encode() == text), None)

    def _load(self, directory: Path) -> KnownNetwork:
        path = directory / NETWORK_FILE
        try:
            content = files.read_json(path)
            if content is None:
                raise NotFoundError(f"{path} is gone")
            return _parse(content, directory)
        except (DamagedStateError, UsageError, KeyError, TypeError, ValueError) as error:
            copy = _copy_once(path)
            reason = error if isinstance(error, UsageError) else "not what dhtvpn writes"
            raise DamagedStateError(
                f"{path} is damaged ({reason}); a copy is kept as {copy.name}: "
                "restore the file from a backup, or move its directory away and join again"
            ) from error

    def _save(self, network: KnownNetwork) -> None:
        files.make_directory(network.directory)
        files.write_json(network.directory / NETWORK_FILE, network.as_json())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time (flock(2)): two commands at once must not both create a name."""
        make_state_directory(self.state_dir)
        files.make_directory(self._networks)
        try:
            descriptor = os.open(self._networks, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise SystemRefusedError(f"cannot open {self._networks} ({error.strerror})") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def list(self) -> list[KnownNetwork]:
        """Every network that can be read, by name."""
        return self._scan()[0]


def make_state_directory(state_dir: Path) -> None:
    """Make the state directory itself, open for passing through and closed for listing.

    One that exists already keeps the permissions that its owner chose.
    """
    if state_dir.is_dir():
        return
    files.make_directory(state_dir, STATE_DIRECTORY_MODE)
    state_dir.chmod(STATE_DIRECTORY_MODE)  # mkdir's mode is cut by the umask


def _parse(content: dict[str, Any], directory: Path) -> KnownNetwork:
    """Strict: a field of the wrong type means that somebody else wrote the file."""
    if content["version"] != NETWORK_FILE_VERSION:
        raise ValueError("version")
    text, seed = content["network_id"], content.get("signing_seed")
    if not isinstance(text, str):
        raise TypeError("network_id")
    port = content.get("port")
    if port is not None and not (isinstance(port, int) and 0 < port < 65536):
        raise ValueError("port")
    relay_mbit = content.get("relay_mbit")
    if relay_mbit is not None and not (isinstance(relay_mbit, int) and 0 <= relay_mbit <= 100_000):
        raise ValueError("relay_mbit")
    hostname, interface, cipher = (content.get(key) for key in ("hostname", "interface", "cipher"))
    bootstrap, peers, discovery = (_texts(content, key) for key in ("bootstrap", "peers", "discovery"))
    if not all(value is None or isinstance(value, str) for value in (hostname, interface, cipher)):
        raise TypeError("hostname, interface or cipher")
    port_mapping = content.get("port_mapping")
    if not (port_mapping is None or isinstance(port_mapping, bool)):
        raise TypeError("port_mapping")
    return KnownNetwork(
        name=directory.name,
        network_id=NetworkId.decode(text),
        directory=directory,
        created_here=content.get("created_here") is True,
        signing_seed=bytes.fromhex(seed) if seed is not None else None,
        hostname=hostname,
        port=port,
        interface=interface,
        cipher=Cipher(cipher) if cipher is not None else None,
        bootstrap=tuple(bootstrap[:MAX_BOOTSTRAP]),
        peers=tuple(peers[:MAX_PEERS]),
        discovery=tuple(dict.fromkeys(Discovery(word) for word in discovery)),
        mainline_routers=tuple(_texts(content, "mainline_routers")[:MAX_BOOTSTRAP]),
        port_mapping=port_mapping,
        relay_mbit=relay_mbit,
    )


def _texts(content: dict[str, Any], key: str) -> list[str]:
    """The list of texts called ``key``; empty where there is none. Raises TypeError."""
    texts = content.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(key)
    return texts


def _copy_once(path: Path) -> Path:
    """A copy of the damaged file; the one from last time where it is the same, so copies do not pile up."""
    content = files.read_bytes(path)
    for copy in sorted(path.parent.glob(f"{path.name}.damaged*")):
        if files.read_bytes(copy) == content:
            return copy
    return files.keep_copy(path)
