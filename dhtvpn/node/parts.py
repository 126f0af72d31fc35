"""What one joined network consists of, for those parts that react to what others notice."""

import asyncio

from dhtvpn.discovery.racing import RacingDirectory
from dhtvpn.discovery.sources import Dht, Sources
from dhtvpn.errors import SystemRefusedError
from dhtvpn.identity import Identity
from dhtvpn.mesh.peers import PeerTable
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.port_mapping.mapper import PortMapper
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.direct_probes import DirectProbes
from dhtvpn.node.events import Events
from dhtvpn.node.finder import Finder
from dhtvpn.node.greetings import Greetings
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.local_end import LocalEnd
from dhtvpn.node.members import Members
from dhtvpn.node.mtu_routes import MtuRoutes
from dhtvpn.node.on_demand import OnDemand
from dhtvpn.node.path_changes import PathChanges
from dhtvpn.node.path_probes import PathProbes
from dhtvpn.node.prediction import Prediction
from dhtvpn.node.recovery import Recovery
from dhtvpn.node.relay_watch import RelayWatch
from dhtvpn.node.relaying import Relaying
from dhtvpn.node.reporter import Reporter
from dhtvpn.node.saving import Saving
from dhtvpn.node.signals import Signals
from dhtvpn.node.stock import StockPeers
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.node.surveying import Surveying
from dhtvpn.node.tunnels import Tunnels


class Parts:
    """Put together by :class:`dhtvpn.node.node.Node`; all there before the first event."""

    config: NodeConfig
    identity: Identity
    session_nonce: bytes
    """Of this run."""
    claim: OwnClaim
    port: UdpPort
    port_mapper: PortMapper | None
    """None where the user does not want one."""
    sources: Sources
    directory: RacingDirectory
    """All sources as one."""
    dht: Dht | None
    local_end: LocalEnd
    surroundings: Surroundings
    events: Events
    table: PeerTable
    tunnels: Tunnels
    relaying: Relaying
    reporter: Reporter
    greetings: Greetings
    liveness: Liveness
    paths: PathChanges
    relay_watch: RelayWatch
    direct_probes: DirectProbes
    prediction: Prediction
    signals: Signals
    path_probes: PathProbes
    mtu_routes: MtuRoutes
    members: Members
    stock: StockPeers
    on_demand: OnDemand
    announcer: Announcer
    surveying: Surveying
    recovery: Recovery
    finder: Finder
    saving: Saving
    stop_requested: asyncio.Event
    engine_restarts: int
    failure: SystemRefusedError | None
    """Why the node stops, where nobody asked it to."""
