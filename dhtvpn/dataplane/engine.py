"""The engine: commands in, events out, packets through. Owns the peers and both ways.

:class:`Engine` is everything but the waiting; ``loop`` waits and calls it. ``now`` is CLOCK_MONOTONIC.
"""

import socket
from collections.abc import Callable, Iterable
from typing import Final, assert_never

from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.inbound import Inbound
from dhtvpn.dataplane.messages import (
    Command,
    CommonCommand,
    Configure,
    Datagram,
    DropCounts,
    EraseKeypairs,
    Event,
    Forward,
    InstallKeypair,
    KeypairConfirmed,
    NeedHandshake,
    NoMember,
    PeerCommand,
    RelayCommand,
    RemovePeer,
    RemoveVia,
    Resolve,
    Send,
    SendProbe,
    SendTo,
    SetEndpoint,
    SetFeatures,
    SetOwnRelayIds,
    SetPathMtu,
    SetPeer,
    SetRelayIds,
    SetSource,
    SetVia,
)
from dhtvpn.dataplane.outbound import Outbound
from dhtvpn.dataplane.peers import Peer, Peers
from dhtvpn.dataplane.sockets import raw_address, source_option
from dhtvpn.dataplane.transmitter import Transmitter
from dhtvpn.drops import Drops
from dhtvpn.mesh.relay_wire import data_header
from dhtvpn.wireguard.constants import TYPE_DATA, TYPE_DATA_AES
from dhtvpn.wireguard.keypair import Keypair

REPORT_INTERVAL_S: Final = 0.25  # ours: the timers that Activity drives count in seconds


class Engine:
    """The data plane of one node. ``emit`` takes its events."""

    def __init__(
        self,
        *,
        device: Device,
        sockets: Iterable[socket.socket],
        segments: dict[int, bool],
        emit: Callable[[Event], None],
    ) -> None:
        self.drops = Drops()
        self._emit = emit
        self._peers = Peers(self._confirmed)
        self._transmitter = Transmitter(sockets, segments, self.drops, self._peers.by_number)
        self._outbound = Outbound(
            device=device,
            peers=self._peers,
            transmitter=self._transmitter,
            drops=self.drops,
            emit=emit,
        )
        self._inbound = Inbound(
            device=device,
            peers=self._peers,
            drops=self.drops,
            emit=emit,
            forward=self._outbound.forward,
            say=self._outbound.send_plaintext,
            came=self._outbound.turns.own,
        )
        self._to_flush: list[Peer] = []
        self._reported_drops = 0
        self._report_at: float | None = None

    def handle_command(self, command: Command, now: float) -> None:
        """Carry out what the control process wants. A peer that is not known any more is no error."""
        self._transmitter.now = now
        if isinstance(command, PeerCommand):
            peer = self._peers.by_number.get(command.peer)
            if peer is None:
                self.drops.count("dataplane", "unknown_peer")
                return
            self._handle_peer_command(peer, command, now)
        else:
            self._handle_common_command(command, now)
        self._after_batch(now)

    def _handle_common_command(self, command: CommonCommand, now: float) -> None:
        match command:
            case Configure():
                self._inbound.set_local_addresses(command.local_addresses)
                self._peers.set_mtu(command.mtu)
            case SetPeer():
                try:
                    self._peers.set(command.peer, command.allowed_ips, command.endpoint)
                except ValueError:
                    self.drops.count("dataplane", "allowed_ips_full")
                self._outbound.holders_changed(now)
            case RemovePeer():
                self._peers.remove(command.peer)
            case Datagram():
                family, source = raw_address(command.source)
                self._inbound.handle_datagram(command.data, family, source, now)
            case Resolve():
                self._outbound.unresolved.set_networks(command.networks)
            case NoMember():
                self._outbound.no_member(command.destination, now)
            case SetVia() | RemoveVia() | SetOwnRelayIds() | Forward():
                self._handle_relay_command(command, now)
            case _:
                assert_never(command)

    def _handle_relay_command(self, command: RelayCommand, now: float) -> None:
        match command:
            case SetVia():
                self._peers.set_via(command.via, command.endpoint, command.carrier, command.through)
            case RemoveVia():
                self._peers.remove_via(command.via)
            case Forward():
                self._outbound.forward_at_most(command.octets_per_s, now)
            case SetOwnRelayIds():
                self._peers.own_headers = frozenset(map(data_header, command.relay_ids))
            case _:
                assert_never(command)

    def _handle_peer_command(self, peer: Peer, command: PeerCommand, now: float) -> None:
        match command:
            case InstallKeypair():
                self._install(peer, command, now)
            case EraseKeypairs():
                self._peers.erase_keypairs(peer)
            case SetEndpoint():
                self._peers.aim(peer, command.endpoint)
            case SetRelayIds():
                self._peers.set_relay_ids(peer, command.relay_ids)
            case SendTo():
                self._outbound.send_to(peer, command.endpoint, command.plaintext, now)
            case SetSource():
                peer.source = source_option(command.address)
            case SetFeatures():
                peer.trains, peer.udp_trains = command.trains, command.udp_trains
                peer.blocks, peer.blocks_wanted = command.blocks, False
                peer.transport.message_type = TYPE_DATA_AES if command.aes else TYPE_DATA
            case SetPathMtu():
                self._peers.set_path_mtu(peer, command.mtu)
            case SendProbe():
                self._outbound.send_probe(peer, command.plaintext, now)
            case Send():
                self._outbound.send_plaintext(peer, command.plaintext, now)
            case _:
                assert_never(command)

    def device_readable(self, now: float) -> None:
        """Packets wait at the device. Raises SystemRefusedError: it is gone."""
        self._transmitter.now = now
        self._outbound.from_device(now)
        self._after_batch(now)

    def socket_readable(self, sock: socket.socket, now: float) -> None:
        """Datagrams wait at a socket."""
        self._transmitter.now = now
        self._inbound.from_socket(sock, now)
        self._after_batch(now)

    def next_timeout(self) -> float | None:
        """When :meth:`handle_timeout` wants to be called; None: only after something has happened."""
        times = (self._report_at, self._outbound.unresolved.next_timeout())
        return min((at for at in times if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Give up packets that wait in vain; tell the control process what has happened since."""
        self._transmitter.now = now
        self._outbound.give_up(now)
        self._after_batch(now)
        if self._report_at is None or now < self._report_at:
            return
        self._report_at = None
        for peer in list(self._peers.active.values()):
            self._emit(self._peers.take_activity(peer))
            if peer.transport.rekey_due() and self._peers.handshake_wanted(peer, now):
                self._emit(NeedHandshake(peer.number))
        total = self.drops.total()
        if total != self._reported_drops:
            self._reported_drops = total
            self._emit(DropCounts(self.drops.as_dict()))

    def _install(self, peer: Peer, command: InstallKeypair, now: float) -> None:
        keypair = Keypair(
            local_index=command.local_index,
            remote_index=command.remote_index,
            send_key=command.send_key,
            receive_key=command.receive_key,
            initiator=command.initiator,
            created_at=command.created_at,
        )
        self._peers.install_keypair(peer, keypair, now)
        if peer.transport.ready(now):
            self._outbound.flush_queue(peer, now)

    def _confirmed(self, peer: Peer, local_index: int) -> None:
        """A responder's keypair may be sent with: called while a datagram is being opened."""
        self._emit(KeypairConfirmed(peer.number, local_index))
        self._to_flush.append(peer)

    def _after_batch(self, now: float) -> None:
        while self._to_flush:
            self._outbound.flush_queue(self._to_flush.pop(), now)
        if self._report_at is None and (self._peers.active or self.drops.total() != self._reported_drops):
            self._report_at = now + REPORT_INTERVAL_S
