"""Puts the parts of one joined network together: membership, directory, paths and tunnels."""

import asyncio
import base64
import time
from collections.abc import Callable
from functools import partial

from dhtvpn.choices import Discovery
from dhtvpn.confinement.process import Confinement
from dhtvpn.dataplane import messages as engine_events
from dhtvpn.discovery.remembered import RememberedContacts, RememberedPeers
from dhtvpn.discovery.sources import Sources
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.identity import Identity, short_id
from dhtvpn.membership.addresses import ipv4_network, ipv6_address, ipv6_network
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import PeerTable
from dhtvpn.mesh.relayed import is_relayed
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.port_mapping.mapper import PortMapper
from dhtvpn.nat.probe_allowance import ProbeAllowance
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.background import Background
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.clock import ClockComparison
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.connector import AgentMaker
from dhtvpn.node.direct_probes import DirectProbes
from dhtvpn.node.events import Events
from dhtvpn.node.finder import Finder
from dhtvpn.node.floors import Floors
from dhtvpn.node.greetings import Greetings
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.local_end import LocalEnd
from dhtvpn.node.member_events import MemberEvents
from dhtvpn.node.members import Members
from dhtvpn.node.memory import Memory
from dhtvpn.node.mtu_routes import MtuRoutes
from dhtvpn.node.neighbourhood import Neighbourhood
from dhtvpn.node.network_events import NetworkEvents
from dhtvpn.node.on_demand import OnDemand
from dhtvpn.node.parts import Parts
from dhtvpn.node.path_changes import PathChanges
from dhtvpn.node.path_events import PathEvents
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
from dhtvpn.node.tunnel_events import TunnelEvents
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.node.waking import no_account
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topics import NetworkTopics
from dhtvpn.wireguard.device import Device


class Assembly(Parts):
    """All parts, made in the order in which they need each other; nothing runs yet.

    Those that call back are given methods of the reactions, which look for the other parts when called.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        identity: Identity,
        claim: OwnClaim,
        port: UdpPort,
        sources: Sources,
        local_end: LocalEnd,
        surroundings: Surroundings,
        make_agent: AgentMaker,
        events: Events,
        drops: Drops,
        random_bytes: Callable[[int], bytes],
        port_mapper: PortMapper | None = None,
        topics: NetworkTopics | None = None,
        wanted_to_run: Callable[[], float] = no_account,
    ) -> None:
        """``topics``: the network's, where a source has to know them too. ``wanted_to_run`` is for
        :class:`dhtvpn.node.waking.Waking`."""
        self.config = config
        self.port_mapper = port_mapper
        self.claim = claim
        self.port = port
        self.sources = sources
        self.directory = sources.race
        self.dht = sources.dht
        self.local_end = local_end
        self.engine_restarts = 0
        self.failure: SystemRefusedError | None = None
        self.confinement: Confinement | None = None
        """What this process has given up; None before it has."""
        self.surroundings = surroundings
        self.events = events
        self.drops = drops
        self.started = time.monotonic()
        self.ipv6 = ipv6_address(config.network_id, identity.node_key)
        self.id = short_id(identity.node_key)
        self.tunnel_public_key_base64 = base64.b64encode(identity.tunnel_public_key).decode()
        self.table = PeerTable()
        self.roster = Roster()
        self.stop_requested = asyncio.Event()
        self.identity = identity
        self.session_nonce = random_bytes(frames.NONCE_SIZE)
        self._background = Background(events.say)
        self._path_events = PathEvents(self, self._background)
        self._tunnel_events = TunnelEvents(self, self._path_events, self._background)
        self._member_events = MemberEvents(self, self._background)
        self._network_events = NetworkEvents(self)
        self._random_bytes = random_bytes
        self._topics = topics or NetworkTopics(config.network_id.secret)
        self._make_parts(make_agent, wanted_to_run)

    def _make_parts(self, make_agent: AgentMaker, wanted_to_run: Callable[[], float]) -> None:
        device = Device(self.identity.tunnel_private_key, self._random_bytes, drops=self.drops)
        self.tunnels = self._make_tunnels(device)
        self.relaying = self._make_relaying()
        self.reporter = Reporter(events=self.events, relays=self.relaying, port=self.port, drops=self.drops)
        self.greetings = Greetings(hello=self._hello, send_frame=self.tunnels.send_frame)
        self.liveness = self._make_liveness()
        self.paths, self.relay_watch = self._make_paths()
        self.direct_probes = DirectProbes(
            places=self._path_events.direct_places, paths=self.paths, allowance=ProbeAllowance()
        )
        self.prediction = self._make_prediction()
        self.signals = self._make_signals()
        self.path_probes = PathProbes(
            send_frame=self.tunnels.send_frame,
            send_probe=self.tunnels.send_probe,
            set_mtu=self._path_events.mtu_found,
            random_bytes=self._random_bytes,
        )
        self.mtu_routes = MtuRoutes(self.local_end.set_mtus, self.table.all)
        self.members = self._make_members(make_agent)
        self.stock = StockPeers(
            self.config.network_directory / "stock-peers.json",
            network_id=self.config.network_id,
            table=self.table,
            tunnels=self.tunnels,
            random_bytes=self._random_bytes,
        )
        self.on_demand = self._make_on_demand()
        self.announcer = self._make_announcer()
        self.surveying = Surveying(
            self.surroundings,
            self.sources,
            names=self._known_names,
            families=self._families,
            changed=self._network_events.surveyed,
            say=self.events.say,
        )
        self.recovery = self._make_recovery(wanted_to_run)
        self.finder = self._make_finder()
        self.clock = ClockComparison(ask=self._clocks_of_others, say=self.events.say)
        self._memory = self._make_memory()
        self.saving = Saving(self._memory, self.events.say)
        self.sources.race.on_brought_again(self._member_events.brought_again)
        self._listen(device.index_tag)

    def _listen(self, index_tag: int) -> None:
        self.local_end.listener = self._tunnel_events
        port = self.port
        port.on_tunnel(self.tunnels.datagram_received)
        port.on_relayed_handshake(self.relaying.handshake_received)
        port.on_relay_service(self.relaying.client.datagram_received)
        port.filter_in_kernel(index_tag)
        port.stun.on_unanswered_check(self.members.checked)

    def _make_tunnels(self, device: Device) -> Tunnels:
        return Tunnels(
            device=device,
            engine=self.local_end.engine,
            table=self.table,
            send=self._send_handshake,
            drops=self.drops,
            listener=self._tunnel_events,
            features=self.local_end.features,
            source_for=self._source_for,
        )

    def _hello(self) -> frames.Hello:
        relays = frames.FEATURE_RELAY if self.config.relay_octets_per_s else 0
        return frames.Hello(self.session_nonce, self.local_end.features | relays, self.config.hostname)

    def _make_neighbourhood(self) -> Neighbourhood:
        return Neighbourhood(
            own_key=self.identity.node_key,
            table=self.table,
            send_frame=self.tunnels.send_frame,
            willing=self.config.relay_octets_per_s > 0,
            drops=self.drops,
        )

    def _make_relaying(self) -> Relaying:
        relaying = Relaying(
            secret=self.config.network_id.secret,
            own_key=self.identity.node_key,
            table=self.table,
            send=self.port.answer,
            homes_changed=self._network_events.homes_changed,
            path_failed=self._path_events.relay_failed,
            stranger=self._tunnel_events.stranger_knocked,
            drops=self.drops,
            neighbourhood=self._make_neighbourhood(),
        )
        relaying.use(self.tunnels)
        return relaying

    def _make_liveness(self) -> Liveness:
        return Liveness(
            send_frame=self.tunnels.send_frame,
            answer_frame=self.tunnels.answer_frame,
            send_frame_to=self.tunnels.send_frame_to,
            random_bytes=self._random_bytes,
            lost=self._path_events.lost,
            other_way=self._path_events.way_beside,
        )

    def _make_paths(self) -> tuple[PathChanges, RelayWatch]:
        paths = PathChanges(
            tunnels=self.tunnels,
            liveness=self.liveness,
            relaying=self.relaying,
            moved=self._path_events.moved,
            because=self.reporter.history.because,
            peer_left=self._path_events.peer_left,
        )
        watch = RelayWatch(
            table=self.table,
            liveness=self.liveness,
            relaying=self.relaying,
            move=paths.move_to_better,
            follow=paths.follow,
        )
        return paths, watch

    def _make_signals(self) -> Signals:
        return Signals(
            session_nonce=self.session_nonce,
            table=self.table,
            send_frame=self.tunnels.send_frame,
            candidates=self.surroundings.candidates,
            homes=lambda: self.relaying.client.homes,
            paths=self.paths,
            predicted=self.prediction.for_signal,
        )

    def _make_prediction(self) -> Prediction:
        return Prediction(
            surroundings=self.surroundings,
            member=self._path_events.member,
            network=self._path_events.network,
            open_port=partial(UdpPort.open, None, host_v6=None, drops=self.drops, tunnel_sockets=False),
            send=self.port.answer,
            may_probe=self._may_probe,
            tell=self._path_events.signal,
            in_background=self._background.start,
        )

    def _make_members(self, make_agent: AgentMaker) -> Members:
        return Members(
            network_id=self.config.network_id,
            identity=self.identity,
            session_nonce=self.session_nonce,
            table=self.table,
            tunnels=self.tunnels,
            surroundings=self.surroundings,
            make_agent=make_agent,
            changed=self._path_events.changed,
            doubt=self.liveness.doubt,
            may_probe=self._may_probe,
            drops=self.drops,
            relaying=self.relaying,
            attempt_begins=self.prediction.attempt_begins,
            attempt_failed=self._path_events.attempt_failed,
            heard_direct=self.paths.heard_elsewhere,
        )

    def _make_recovery(self, wanted_to_run: Callable[[], float]) -> Recovery:
        return Recovery(
            interface=self.local_end.interface,
            members=self.members.all,
            tunnels=self.tunnels,
            liveness=self.liveness,
            lost=self._path_events.network_lost,
            network_changed=self._network_events.changed,
            surveying=self.surveying,
            dht=self.dht,
            announce=partial(self.announcer.announce, again=True),
            say=self.events.say,
            in_background=self._background.start,
            wanted_to_run=wanted_to_run,
            lan=Discovery.LAN in self.config.discovery,
        )

    def _make_on_demand(self) -> OnDemand:
        network_id = self.config.network_id
        networks = (ipv4_network(network_id), ipv6_network(network_id))
        return OnDemand(
            directory=self.directory,
            network_id=network_id,
            own_key=self.identity.node_key,
            own_name=self.config.hostname,
            own_ipv4=lambda: self.claim.address,
            roster_size=self.config.roster_size,
            roster=self.roster,
            connect=self._member_events.connect,
            contender=self._member_events.contended,
            no_member=self.tunnels.no_member,
            resolve=lambda wanted: self.tunnels.resolve(networks if wanted else ()),
            became_crowded=self._path_events.became_crowded,
            drops=self.drops,
            topics=self._topics,
        )

    def _make_announcer(self) -> Announcer:
        return Announcer(
            directory=self.directory,
            identity=self.identity,
            topic_at=self._topics.roster,
            record=self._record,
            random_bytes=self._random_bytes,
            published=self._network_events.published,
            roster_open=self.on_demand.roster_open,
            more_topics=self.on_demand.published_topics,
        )

    def _make_finder(self) -> Finder:
        finder = Finder(
            directory=self.directory,
            topic_at=self._topics.roster,
            roster=self.roster,
            own_node_key=self.identity.node_key,
            member_found=self._member_events.found,
            member_expired=self.members.record_expired,
            drops=self.drops,
            record_seen=self._member_events.record_seen,
            own_record_seen=self.announcer.seen_own,
            more_topics=self.on_demand.watched_topics,
            caller_found=self._member_events.connect,
            roster_changed=self.on_demand.follow,
            roster_watched=self.on_demand.roster_watched,
        )
        self.on_demand.use(self.announcer, finder)
        return finder

    def _make_memory(self) -> Memory:
        return Memory(
            RememberedPeers(self.config.network_directory / "peers.json"),
            RememberedContacts(self.config.network_directory / "contacts.json"),
            members=self.members,
            tunnels=self.tunnels,
            known_contacts=self.sources.contacts,
            record_recalled=self.finder.recall,
            floors=Floors(self.config.network_directory / "sequences.json"),
            roster=self.roster,
            announcer=self.announcer,
        )

    # Facts that parts ask for

    def _may_probe(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint that a peer has named gets one more datagram."""
        return self.port.stun.check_budget.take(endpoint, time.monotonic())

    def _send_handshake(self, data: bytes, endpoint: Endpoint) -> None:
        if is_relayed(endpoint):
            self.relaying.send_handshake(data, endpoint)
        else:
            self.port.answer(data, endpoint)

    def _relay_candidates(self) -> list[Endpoint]:
        """Who may be a volunteer that relays: those we were told of first."""
        return list(dict.fromkeys([*self.surveying.servers, *self.sources.contacts()]))

    @property
    def _families(self) -> frozenset[int]:
        return frozenset(self.port.families)

    @property
    def _known_names(self) -> tuple[str, ...]:
        """Whom to ask first: members are DHT nodes and answer STUN as bootstrap nodes do."""
        return (*self.config.bootstrap, *self.config.peers)

    def _record(self) -> EndpointRecord:
        return EndpointRecord(
            node_key=self.identity.node_key,
            name=self.config.hostname,
            session_nonce=self.session_nonce,
            candidates=self.signals.published(),
            ipv4_attempt=self.claim.attempt,
            since=self.claim.since,
            features=0,
            leaving=False,
            nat=self.surroundings.nat,
        )

    def _source_for(self, endpoint: Endpoint) -> engine_events.Address | None:
        """Only where there is a choice: what is pinned to an address cannot follow another route."""
        if is_relayed(endpoint):
            return None
        return self.port.heard_at(endpoint) if self.surroundings.has_choice(endpoint.is_ipv6) else None

    async def _clocks_of_others(self) -> list[float]:
        return await self.dht.ask_time(self.dht.contacts()) if self.dht is not None else []
