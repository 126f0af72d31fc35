"""One joined network: ties membership, directory, paths and tunnels together and runs them."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from dhtvpn.confinement.process import Confinement
from dhtvpn.dataplane import messages as engine_events
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.discovery.remembered import RememberedContacts, RememberedPeers
from dhtvpn.discovery.sources import REMEMBERED, Dht, Sources
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.identity import Identity, short_id
from dhtvpn.membership.addresses import Claim, ipv4_network, ipv6_address, ipv6_network
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Occasion, Peer, PeerState, PeerTable
from dhtvpn.mesh.relayed import is_relayed
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.port_mapping.mapper import PortMapper
from dhtvpn.nat.probe_allowance import ProbeAllowance
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.bootstrap import Bootstrapper
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.clock import ClockComparison
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.connector import AgentMaker
from dhtvpn.node.direct_probes import DirectProbes
from dhtvpn.node.events import Events
from dhtvpn.node.finder import Finder
from dhtvpn.node.floors import Floors
from dhtvpn.node.hints import keep_aiming
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.local_end import LocalEnd
from dhtvpn.node.members import Members
from dhtvpn.node.memory import Memory
from dhtvpn.node.mtu_routes import MtuRoutes
from dhtvpn.node.neighbourhood import Neighbourhood
from dhtvpn.node.on_demand import OnDemand
from dhtvpn.node.path_changes import PathChanges
from dhtvpn.node.path_facts import Why
from dhtvpn.node.path_probes import PathProbes
from dhtvpn.node.patience import happens
from dhtvpn.node.recovery import Recovery
from dhtvpn.node.relay_watch import RelayWatch
from dhtvpn.node.relaying import Relaying
from dhtvpn.node.reporter import Reporter
from dhtvpn.node.signals import Signals
from dhtvpn.node.stock import StockPeers
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.node.surveying import Surveying
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.records.envelope import OpenedRecord
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topics import NetworkTopics
from dhtvpn.wireguard.device import Device

log = logging.getLogger(__name__)

SAVE_S = 30.0
LONE_CHECK_S = 1.0
"""How often a node without contacts looks whether it has some; being reached wakes it at once."""
STRANGER_PAUSE_S = 5.0
"""A handshake from an unknown key may be a member whose record is on its way: look at most this often."""
FIRST_SURVEY_S = 0.7
"""How long the first record waits for the public endpoint. Without it peers would start with half the
candidates; later than this they had better start with the host's own."""


class Node:
    """A node of one network. ``run`` until cancelled, then ``depart`` and ``close``."""

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
    ) -> None:
        """``topics``: the network's, where a source has to know them too."""
        self.config = config
        self.port_mapper = port_mapper
        """None where the user does not want one."""
        self.claim = claim
        self.port = port
        self.sources = sources
        self.directory = sources.race
        self.dht = sources.dht
        self.local_end = local_end
        self.engine_restarts = 0
        self.failure: SystemRefusedError | None = None
        """Why the node stops, where nobody asked it to."""
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
        self._identity = identity
        self._session_nonce = random_bytes(frames.NONCE_SIZE)
        self._last_stranger = -STRANGER_PAUSE_S
        self._background: set[asyncio.Task[object]] = set()
        self._random_bytes = random_bytes
        self._topics = topics or NetworkTopics(config.network_id.secret)
        device = Device(identity.tunnel_private_key, random_bytes, drops=drops)
        self.tunnels = self._make_tunnels(device)
        self.relaying = self._make_relaying()
        self.reporter = Reporter(events=events, relays=self.relaying, port=port, drops=drops)
        self.liveness = self._make_liveness()
        self.paths, self.direct_probes = self._make_paths()
        self.signals = self._make_signals()
        self.path_probes = PathProbes(
            send_frame=self.tunnels.send_frame,
            send_probe=self.tunnels.send_probe,
            set_mtu=self._path_mtu_found,
            random_bytes=random_bytes,
        )
        self._mtu_routes = MtuRoutes(local_end.set_mtus, self.table.all)
        self.members = self._make_members(make_agent)
        self.stock = StockPeers(
            config.network_directory / "stock-peers.json",
            network_id=config.network_id,
            table=self.table,
            tunnels=self.tunnels,
            random_bytes=random_bytes,
        )
        self.on_demand = self._make_on_demand()
        self.announcer = self._make_announcer()
        self.surveying = Surveying(
            self.surroundings,
            sources,
            names=self._known_names,
            families=self._families,
            changed=self._surveyed,
            say=events.say,
        )
        self.recovery = self._make_recovery()
        self.finder = self._make_finder()
        self.clock = ClockComparison(ask=self._clocks_of_others, say=events.say)
        self._memory = self._make_memory()
        self._listen(device.index_tag)

    def _listen(self, index_tag: int) -> None:
        self.local_end.listener = self
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
            listener=self,
            features=self.local_end.features,
            source_for=self._source_for,
        )

    def _make_neighbourhood(self) -> Neighbourhood:
        return Neighbourhood(
            own_key=self._identity.node_key,
            table=self.table,
            send_frame=self.tunnels.send_frame,
            willing=self.config.relay_octets_per_s > 0,
            drops=self.drops,
        )

    def _make_relaying(self) -> Relaying:
        relaying = Relaying(
            secret=self.config.network_id.secret,
            own_key=self._identity.node_key,
            table=self.table,
            send=self.port.answer,
            homes_changed=self._homes_changed,
            path_failed=self._relay_failed,
            stranger=self.stranger_knocked,
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
            lost=self._path_lost,
            other_way=self._way_beside,
        )

    def _make_paths(self) -> tuple[PathChanges, DirectProbes]:
        paths = PathChanges(
            tunnels=self.tunnels,
            liveness=self.liveness,
            relaying=self.relaying,
            moved=self._path_moved,
            because=self.reporter.history.because,
        )
        return paths, DirectProbes(places=self._direct_places, paths=paths, allowance=ProbeAllowance())

    def _make_signals(self) -> Signals:
        return Signals(
            session_nonce=self._session_nonce,
            table=self.table,
            send_frame=self.tunnels.send_frame,
            candidates=self.surroundings.candidates,
            homes=lambda: self.relaying.client.homes,
            paths=self.paths,
        )

    def _make_relay_watch(self) -> RelayWatch:
        return RelayWatch(
            table=self.table,
            liveness=self.liveness,
            relaying=self.relaying,
            move=self.paths.move_to_better,
        )

    def _make_members(self, make_agent: AgentMaker) -> Members:
        return Members(
            network_id=self.config.network_id,
            identity=self._identity,
            session_nonce=self._session_nonce,
            table=self.table,
            tunnels=self.tunnels,
            surroundings=self.surroundings,
            make_agent=make_agent,
            changed=self._peer_changed,
            doubt=self.liveness.doubt,
            may_probe=lambda endpoint: self.port.stun.check_budget.take(endpoint, time.monotonic()),
            drops=self.drops,
            relaying=self.relaying,
            attempt_failed=self.reporter.attempt_failed,
            heard_direct=self.paths.heard_elsewhere,
        )

    def _make_recovery(self) -> Recovery:
        return Recovery(
            interface=self.local_end.interface,
            members=self.members.all,
            tunnels=self.tunnels,
            liveness=self.liveness,
            lost=self._network_lost,
            network_changed=self._network_changed,
            surveying=self.surveying,
            dht=self.dht,
            announce=partial(self.announcer.announce, again=True),
            say=self.events.say,
            in_background=self._in_background,
        )

    def _make_on_demand(self) -> OnDemand:
        network_id = self.config.network_id
        networks = (ipv4_network(network_id), ipv6_network(network_id))
        return OnDemand(
            directory=self.directory,
            network_id=network_id,
            own_key=self._identity.node_key,
            own_name=self.config.hostname,
            own_ipv4=lambda: self.claim.address,
            roster_size=self.config.roster_size,
            roster=self.roster,
            connect=self._connect,
            contender=self._contended,
            no_member=self.tunnels.no_member,
            resolve=lambda wanted: self.tunnels.resolve(networks if wanted else ()),
            became_crowded=self._became_crowded,
            drops=self.drops,
            topics=self._topics,
        )

    def _make_announcer(self) -> Announcer:
        return Announcer(
            directory=self.directory,
            identity=self._identity,
            topic_at=self._topics.roster,
            record=self._record,
            random_bytes=self._random_bytes,
            published=self._published,
            roster_open=self.on_demand.roster_open,
            more_topics=self.on_demand.published_topics,
        )

    def _make_finder(self) -> Finder:
        finder = Finder(
            directory=self.directory,
            topic_at=self._topics.roster,
            roster=self.roster,
            own_node_key=self._identity.node_key,
            member_found=self._member_found,
            member_expired=self.members.record_expired,
            drops=self.drops,
            record_seen=self._record_seen,
            own_record_seen=self.announcer.seen_own,
            more_topics=self.on_demand.watched_topics,
            caller_found=self._connect,
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

    async def run(self) -> None:
        """Find and connect everyone, until cancelled or ``stop_requested``."""
        contacts = self._memory.recall()  # first of all: it needs nobody's answer but the peer's
        await self.sources.start()
        self.stock.load(self.taken_ipv4())
        self.tunnels.forward(self.config.relay_octets_per_s)
        loops = [
            self.surveying.run(contacts),
            self.recovery.run(),
            self._announce_when_surveyed(),
            self.finder.run(),
            self.on_demand.run(),
            self._save_loop(),
            self._expire_stock_loop(),
            self.relaying.run(self._relay_candidates),
            self._make_relay_watch().run(),
            self.reporter.run(),
        ]
        if self.port_mapper is not None:
            self.port_mapper.attach(self._mapping_changed, lambda: self.surroundings.public_endpoints)
            loops.append(self.port_mapper.run())
        if self.sources.hints is not None and self.config.peers:
            loops.append(keep_aiming(self.sources.hints, self.config.peers, self._families))
        if self.dht is not None:
            bootstrapper = Bootstrapper(
                directory=self.dht,
                names=self._known_names,
                remembered=contacts,
                families=self._families,
                say=self.events.say,
                answered=self._directory_reached,
            )
            loops += [bootstrapper.run(), self._compare_clocks_when_reached(self.dht)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            await self.stop_requested.wait()
            for task in tasks:
                task.cancel()

    async def depart(self) -> None:
        """Tell peers and directory that this node goes. Quick: nobody is waited for longer than a second."""
        for peer in self.table.connected():
            if peer.node_key is not None:
                self.tunnels.send_frame(peer, frames.Goodbye())
        goodbye = self.announcer.goodbye(replace(self._record(), leaving=True))
        release = self.port_mapper.release() if self.port_mapper is not None else asyncio.sleep(0)
        await asyncio.gather(goodbye, release)

    async def close(self) -> None:
        """Release everything but the descriptors, which belong to the daemon."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.on_demand.close()
        await self.direct_probes.close()
        await self.paths.close()
        await self.liveness.close()
        self.path_probes.close()
        await self._mtu_routes.close()
        await self.members.close()
        self.tunnels.close()
        self._save()

    # What the tunnels tell (tunnels.TunnelListener)

    def session_up(self, peer: Peer) -> None:
        member = self.members.of(peer)
        if member is None:
            if peer.move(Occasion.SESSION_UP):
                self._peer_changed(peer)
            return
        self.tunnels.send_frame(peer, self._hello())
        self.reporter.led_to(peer, member.connector.found_by(peer.endpoint))
        member.connector.session_up()
        self.reporter.history.look(peer)
        self.liveness.watch(peer)
        self.path_probes.watch(peer)
        self.signals.session_up(peer)
        if not peer.relayed:
            self.relaying.neighbourhood.introduce(peer)

    def _hello(self) -> frames.Hello:
        features = self.local_end.features | (frames.FEATURE_RELAY if self.config.relay_octets_per_s else 0)
        return frames.Hello(self._session_nonce, features, self.config.hostname)

    def relayed_handshake(self, peer: Peer, frame: bytes) -> None:
        self.relaying.handshake_from_member(peer, frame)

    def frame_received(self, peer: Peer, frame: frames.Frame) -> None:
        match frame:
            case frames.Hello():
                if peer.session_nonce not in (None, frame.session_nonce):
                    self.path_probes.peer_restarted(peer)
                    self.signals.forget(peer)
                    self.signals.session_up(peer)
                peer.session_nonce = frame.session_nonce
                self.tunnels.use_features(peer, frame.features)
                peer.relays_for_members = bool(frame.features & frames.FEATURE_RELAY)
                self.relaying.may_carry(peer)
            case frames.Ping() | frames.Pong():
                self.liveness.frame_received(peer, frame)
            case frames.Probe() | frames.ProbeAck():
                self.path_probes.frame_received(peer, frame)
            case frames.Signal():
                self.signals.received(peer, frame, self.members)
            case frames.Neighbours():
                self.relaying.neighbourhood.heard(peer, frame.links)
            case frames.Goodbye():
                member = self.members.of(peer)
                if member is not None:
                    self.liveness.forget(peer)
                    self.path_probes.forget(peer)
                    member.connector.gone()
                    self._carrier_lost(peer)

    def endpoint_moved(self, peer: Peer) -> None:
        member = self.members.of(peer)
        if member is not None and peer.state is PeerState.CONNECTED:
            if (why := member.connector.found_by(peer.endpoint)) is Why.CHECKS:
                self.reporter.led_to(peer, why)
            member.connector.remember_endpoint()
            self.reporter.history.look(peer)
        self.path_probes.endpoint_moved(peer)

    def heard_elsewhere(self, peer: Peer, endpoint: Endpoint) -> None:
        if self.members.of(peer) is not None:
            self.paths.heard_elsewhere(peer, endpoint)

    def try_for_direct(self, peer: Peer) -> None:
        """Somebody waits for a direct path: both sides try now."""
        member = self.members.of(peer)
        if member is not None and peer.path != "direct":
            if peer.relayed:
                self.signals.send(peer)
                self.direct_probes.wanted(peer)
            member.connector.hurry()

    def packets_moved(self, peer: Peer) -> None:
        self.liveness.packets_moved(peer)
        self.path_probes.packets_moved(peer)
        if self.members.of(peer) is not None:
            self.direct_probes.packets_moved(peer)

    def probe_refused(self, peer: Peer, size: int) -> None:
        self.path_probes.refused(peer, size)

    def stranger_knocked(self) -> None:
        now = time.monotonic()
        if now - self._last_stranger >= STRANGER_PAUSE_S:
            self._last_stranger = now
            self._in_background(self.finder.look_up())

    def address_wanted(self, address: engine_events.Address) -> None:
        self.on_demand.wanted(address)

    def engine_event(self, event: engine_events.Event) -> None:
        self.tunnels.engine_event(event)

    def engine_ended(self, code: int, pause_s: float) -> None:
        """The engine died: no packet passes until there is another."""
        self.reporter.engine_ended(code, pause_s)

    def engine_replaced(self, engine: EngineProcess) -> None:
        """``engine`` is the new one: sessions come back by new handshakes."""
        self.engine_restarts += 1
        self.tunnels.use_engine(engine)
        self.reporter.engine_restarted(self.engine_restarts)

    def engine_lost(self, error: SystemRefusedError) -> None:
        """There will be no other engine: the node ends."""
        self.failure = SystemRefusedError(f"{error}, and no other can be started: join again")
        self.stop_requested.set()

    # Loops

    async def _announce_when_surveyed(self) -> None:
        if not await happens(self.surveying.done, FIRST_SURVEY_S):
            log.info("publishing without a public endpoint for now")
        await self.announcer.run()

    async def _compare_clocks_when_reached(self, dht: Dht) -> None:
        while not dht.size:
            await self.events.changed(LONE_CHECK_S)
        await self.clock.run()

    async def _clocks_of_others(self) -> list[float]:
        return await self.dht.ask_time(self.dht.contacts()) if self.dht is not None else []

    async def _save_loop(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            self._save()

    async def _expire_stock_loop(self) -> None:
        """A stock peer sends nothing when idle: after REJECT_AFTER_TIME without a handshake we know no
        more about it."""
        while True:
            await asyncio.sleep(10.0)
            for stock in self.stock.all():
                handshake = self.tunnels.last_handshake(stock.peer)
                stale = handshake is None or time.monotonic() - handshake > 180.0
                if stale and stock.peer.move(Occasion.PATH_LOST):
                    self._peer_changed(stock.peer)

    # Reactions

    def _member_found(self, opened: OpenedRecord) -> None:
        """A record in the roster topic: of a peer, or of one who becomes a peer unless there are many."""
        if self.members.knows(opened.record.node_key) or not self.on_demand.crowded():
            self._connect(opened)
        else:
            self._contended(opened)

    def _connect(self, opened: OpenedRecord) -> None:
        if not self.members.knows(opened.record.node_key):
            source = self.directory.source_of(opened.envelope) or REMEMBERED
            self.reporter.found(opened.record.name, short_id(opened.record.node_key), source)
        self.members.record_arrived(opened.record, opened.sequence)
        self._record_seen(opened)
        self._mtu_routes.refresh()  # it may have another IPv4 address now
        self._contended(opened)

    def _contended(self, opened: OpenedRecord) -> None:
        """``opened`` may be of somebody who holds our IPv4 address: then one of us moves on."""
        record = opened.record
        claims = [*self.members.claims(), Claim(record.node_key, record.ipv4_attempt, record.since)]
        if self.claim.settle(claims, time.time()):
            self._in_background(self._move(self.claim.address))
            self.events.say("warning", f"another node holds our address: moved to {self.claim.address}")
            self.announcer.announce()

    def _record_seen(self, opened: OpenedRecord) -> None:
        source = self.directory.source_of(opened.envelope) or REMEMBERED
        self.members.record_seen(opened.record.node_key, opened.envelope, source, time.time())

    async def _move(self, address: IPv4Address) -> None:
        await self.local_end.move(address)
        self._mtu_routes.routes_lost()

    def _path_mtu_found(self, peer: Peer, mtu: int | None) -> None:
        self.tunnels.set_mtu(peer, mtu)
        self._mtu_routes.refresh()

    def _directory_reached(self) -> None:
        self.announcer.announce()
        self.events.wake()

    def _published(self, stores: int) -> None:
        log.debug("record published, %d other nodes hold it", stores)
        self.on_demand.follow()
        self.events.wake()

    def _peer_changed(self, peer: Peer) -> None:
        self.reporter.history.look(peer)
        if peer.state is PeerState.CONNECTED:
            self._in_background(self._save_soon())
        elif peer.state is PeerState.UNREACHABLE and self.on_demand.crowded():
            self._in_background(self._forget(peer))

    def _network_changed(self) -> None:
        self.port.network_changed()
        self.relaying.client.network_changed()
        if self.port_mapper is not None:
            self.port_mapper.look_again()

    def _mapping_changed(self) -> None:
        before = self.surroundings.candidates()
        if self.port_mapper is not None:
            self.surroundings.mapped_endpoints = self.port_mapper.endpoints
        if self.surroundings.candidates() != before:
            self._candidates_changed()
        self.events.wake()

    def _became_crowded(self) -> None:
        """There are more members than connect to each other at once: whoever is wanted is looked up."""
        for member in self.members.all():
            self._in_background(self._forget(member.peer))

    async def _forget(self, peer: Peer) -> None:
        if peer.state is not PeerState.CONNECTED and peer.node_key is not None:
            self.liveness.forget(peer)
            self.paths.forget(peer)
            self.direct_probes.forget(peer)
            self.path_probes.forget(peer)
            await self.members.forget(peer.node_key)

    def _surveyed(self, afresh: bool) -> None:
        steady = self.surroundings.mapping is not Mapping.ADDRESS_AND_PORT_DEPENDENT
        self.reporter.seen_from_outside(self.surroundings.public_endpoints, steady=steady)
        if afresh:
            self.relaying.client.network_changed()
            self.recovery.surveyed()
            self.signals.send_to_relayed()
            for peer in self.table.connected():
                if self.members.of(peer) is not None:
                    self.direct_probes.wanted(peer)
        else:
            self._candidates_changed()

    def _candidates_changed(self) -> None:
        self.announcer.announce()
        self.signals.send_to_relayed()

    def _direct_places(self, peer: Peer) -> list[Endpoint]:
        """Where a relayed peer may be reached directly: where it was before, then what it says itself."""
        member = self.members.of(peer)
        if member is None:
            return []
        told = [candidate.endpoint for candidate in member.connector.candidates]
        places = dict.fromkeys([*member.connector.known_endpoints, *told])
        return [place for place in places if (6 if place.is_ipv6 else 4) in self._families]

    def _way_beside(self, peer: Peer) -> Endpoint | None:
        """A way through a relay to a peer that packets do not take now."""
        return next((way for way in self.relaying.ways_now(peer) if way != peer.endpoint), None)

    def _homes_changed(self) -> None:
        self.announcer.announce()

    def _relay_failed(self, peer: Peer) -> None:
        self.reporter.history.because(peer, Why.RELAY_GONE)
        self._path_failed(peer)

    def _network_lost(self, peer: Peer) -> None:
        self.reporter.history.because(peer, Why.NETWORK_CHANGED)
        self._path_failed(peer)

    def _path_failed(self, peer: Peer) -> None:
        """Nothing comes of ``peer`` any more: its relay says so, or the network has changed."""
        self.liveness.forget(peer)
        self._path_lost(peer)

    def _path_moved(self, peer: Peer) -> None:
        """The peer's packets take another path, which works."""
        member = self.members.of(peer)
        if member is None:
            return
        self.path_probes.watch(peer)
        if peer.relayed:
            self._carrier_lost(peer)
            member.connector.fell_back()
            self.signals.send(peer)
        else:
            member.connector.session_up()
            self.relaying.neighbourhood.introduce(peer)
            self._peer_changed(peer)

    def _carrier_lost(self, peer: Peer) -> None:
        self.relaying.neighbourhood.gone(peer)
        self.relaying.carrier_lost(peer)

    def _path_lost(self, peer: Peer) -> None:
        member = self.members.of(peer)
        if member is not None and self.paths.fall_back(peer):
            return
        self.path_probes.forget(peer)
        self.signals.forget(peer)
        self.recovery.path_lost()
        if member is not None:
            self._carrier_lost(peer)
            member.connector.path_lost()
            if self.on_demand.full():
                self.on_demand.wanted(peer.ipv6, fresh=True)  # it may be elsewhere now, and we are not told

    def _send_handshake(self, data: bytes, endpoint: Endpoint) -> None:
        if is_relayed(endpoint):
            self.relaying.send_handshake(data, endpoint)
        else:
            self.port.answer(data, endpoint)

    def _relay_candidates(self) -> list[Endpoint]:
        """Who may be a volunteer that relays: those we were told of first."""
        return list(dict.fromkeys([*self.surveying.servers, *self.sources.contacts()]))

    async def _save_soon(self) -> None:
        self._save()

    def _save(self) -> None:
        try:
            self._memory.save()
        except SystemRefusedError as error:
            self.events.say("warning", str(error))

    # Facts

    @property
    def _families(self) -> frozenset[int]:
        return frozenset(self.port.families)

    @property
    def _known_names(self) -> tuple[str, ...]:
        """Whom to ask first: members are DHT nodes and answer STUN as bootstrap nodes do."""
        return (*self.config.bootstrap, *self.config.peers)

    def _record(self) -> EndpointRecord:
        return EndpointRecord(
            node_key=self._identity.node_key,
            name=self.config.hostname,
            session_nonce=self._session_nonce,
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

    def taken_ipv4(self) -> set[IPv4Address]:
        """Overlay addresses that somebody holds, as far as this node knows."""
        return {self.claim.address, *(peer.ipv4 for peer in self.table.all() if peer.ipv4)}

    def _in_background(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[object]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SystemRefusedError):
            self.events.say("warning", str(error))
        elif error is not None:
            log.error("a background task failed", exc_info=error)
