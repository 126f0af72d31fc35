"""One joined network: ties membership, directory, paths and tunnels together and runs them."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
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
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.bootstrap import Bootstrapper, first_endpoints
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.clock import ClockComparison
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.connector import AgentMaker
from dhtvpn.node.events import Events
from dhtvpn.node.finder import Finder
from dhtvpn.node.floors import Floors
from dhtvpn.node.hints import keep_aiming
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.local_end import LocalEnd
from dhtvpn.node.members import Members
from dhtvpn.node.memory import Memory
from dhtvpn.node.mtu_routes import MtuRoutes
from dhtvpn.node.on_demand import OnDemand
from dhtvpn.node.path_probes import PathProbes
from dhtvpn.node.stock import StockPeers
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.records.envelope import OpenedRecord
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topics import NetworkTopics
from dhtvpn.wireguard.device import Device

log = logging.getLogger(__name__)

SURVEY_S = (3.0, 15.0, 120.0)
"""Pauses between surveys; the last one repeats. The early ones find a second STUN server for the mapping."""
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
        topics: NetworkTopics | None = None,
    ) -> None:
        """``topics``: the network's, where a source has to know them too."""
        self.config = config
        self.claim = claim
        self.port = port
        self.sources = sources
        self.directory = sources.race
        self.dht = sources.dht
        if self.dht is not None:
            self.dht.read_only = True  # until a survey shows that strangers can reach us
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
        self._background: set[asyncio.Task[None]] = set()
        self._surveyed = asyncio.Event()
        self._random_bytes = random_bytes
        self._topics = topics or NetworkTopics(config.network_id.secret)
        device = Device(identity.tunnel_private_key, random_bytes, drops=drops)
        self.tunnels = Tunnels(
            device=device,
            engine=local_end.engine,
            table=self.table,
            send=port.send,
            drops=drops,
            listener=self,
            features=local_end.features,
        )
        self.liveness = Liveness(
            send_frame=self.tunnels.send_frame, random_bytes=random_bytes, lost=self._path_lost
        )
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
        self.finder = self._make_finder()
        self.on_demand.use(self.announcer, self.finder)
        self.clock = ClockComparison(ask=self._clocks_of_others, say=events.say)
        self._memory = self._make_memory()
        local_end.listener = self
        port.on_tunnel(self.tunnels.datagram_received)
        port.filter_in_kernel(device.index_tag)
        port.stun.on_unanswered_check(self.members.checked)

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
            drops=self.drops,
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
        return Finder(
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
        loops = [
            self._survey_loop(contacts),
            self._announce_when_surveyed(),
            self.finder.run(),
            self.on_demand.run(),
            self._save_loop(),
            self._expire_stock_loop(),
        ]
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
        await self.announcer.goodbye(replace(self._record(), leaving=True))

    async def close(self) -> None:
        """Release everything but the descriptors, which belong to the daemon."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.on_demand.close()
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
        hello = frames.Hello(self._session_nonce, self.local_end.features, self.config.hostname)
        self.tunnels.send_frame(peer, hello)
        member.connector.session_up()
        self.liveness.watch(peer)
        self.path_probes.watch(peer)

    def frame_received(self, peer: Peer, frame: frames.Frame) -> None:
        match frame:
            case frames.Hello():
                if peer.session_nonce not in (None, frame.session_nonce):
                    self.path_probes.peer_restarted(peer)
                peer.session_nonce = frame.session_nonce
                self.tunnels.use_features(peer, frame.features)
            case frames.Ping() | frames.Pong():
                self.liveness.frame_received(peer, frame)
            case frames.Probe() | frames.ProbeAck():
                self.path_probes.frame_received(peer, frame)
            case frames.Goodbye():
                member = self.members.of(peer)
                if member is not None:
                    self.liveness.forget(peer)
                    self.path_probes.forget(peer)
                    member.connector.gone()

    def endpoint_moved(self, peer: Peer) -> None:
        member = self.members.of(peer)
        if member is not None and peer.state is PeerState.CONNECTED:
            member.connector.remember_endpoint()
        self.path_probes.endpoint_moved(peer)

    def packets_moved(self, peer: Peer) -> None:
        self.path_probes.packets_moved(peer)

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
        how = f"was ended by signal {-code}" if code < 0 else f"ended unexpectedly (exit code {code})"
        when = f"in {pause_s:g} s" if pause_s else "now"
        self.events.say("warning", f"the engine process {how}; another one is started {when}")

    def engine_replaced(self, engine: EngineProcess) -> None:
        """``engine`` is the new one: sessions come back by new handshakes."""
        self.engine_restarts += 1
        self.tunnels.use_engine(engine)
        self.events.say("warning", "there is a new engine process: sessions are made again")

    def engine_lost(self, error: SystemRefusedError) -> None:
        """There will be no other engine: the node ends."""
        self.failure = SystemRefusedError(f"{error}, and no other can be started: join again")
        self.stop_requested.set()

    # Loops

    async def _survey_loop(self, remembered: Sequence[Endpoint]) -> None:
        servers = await first_endpoints(self._known_names, remembered, self._families)
        for number in range(1 << 62):
            known = self.sources.contacts()
            try:
                changed = await self.surroundings.look(list(dict.fromkeys([*servers, *known])))
            except SystemRefusedError as error:
                self.events.say("warning", str(error))
                changed = False
            if self.dht is not None:
                self.dht.read_only = self.surroundings.mapping is not Mapping.NONE
            if changed:
                public = ", ".join(str(endpoint) for endpoint in self.surroundings.public_endpoints)
                self.events.say("nat", f"seen from outside as {public or 'unknown'}")
                self.announcer.announce()
            self._surveyed.set()
            await asyncio.sleep(SURVEY_S[min(number, len(SURVEY_S) - 1)])

    async def _announce_when_surveyed(self) -> None:
        try:
            await asyncio.wait_for(self._surveyed.wait(), FIRST_SURVEY_S)
        except TimeoutError:
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
            self.events.say("member", f"{opened.record.name} is found")
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
        match peer.state:
            case PeerState.CONNECTED:
                text = f"{peer.name} ({peer.ipv4 or peer.ipv6}) is connected at {peer.endpoint}"
            case PeerState.CONNECTING:
                text = f"{peer.name}: connecting"
            case PeerState.UNREACHABLE:
                text = f"{peer.name} is unreachable"
        self.events.say("peer", text)
        if peer.state is PeerState.CONNECTED:
            self._in_background(self._save_soon())
        elif peer.state is PeerState.UNREACHABLE and self.on_demand.crowded():
            self._in_background(self._forget(peer))

    def _became_crowded(self) -> None:
        """There are more members than connect to each other at once: whoever is wanted is looked up."""
        for member in self.members.all():
            self._in_background(self._forget(member.peer))

    async def _forget(self, peer: Peer) -> None:
        if peer.state is not PeerState.CONNECTED and peer.node_key is not None:
            self.liveness.forget(peer)
            self.path_probes.forget(peer)
            await self.members.forget(peer.node_key)

    def _path_lost(self, peer: Peer) -> None:
        self.path_probes.forget(peer)
        member = self.members.of(peer)
        if member is not None:
            member.connector.path_lost()
            if self.on_demand.full():
                self.on_demand.wanted(peer.ipv6, fresh=True)  # it may be elsewhere now, and we are not told

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
            candidates=self.surroundings.candidates(),
            ipv4_attempt=self.claim.attempt,
            since=self.claim.since,
            features=0,
            leaving=False,
        )

    def taken_ipv4(self) -> set[IPv4Address]:
        """Overlay addresses that somebody holds, as far as this node knows."""
        return {self.claim.address, *(peer.ipv4 for peer in self.table.all() if peer.ipv4)}

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SystemRefusedError):
            self.events.say("warning", str(error))
        elif error is not None:
            log.error("a background task failed", exc_info=error)
