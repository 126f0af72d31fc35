"""The control side's handle of the engine process.

The control process makes the device and the sockets, keeps its own descriptors of them, and gives copies
to the engine; so a new engine can be started when one has died. Commands are plain calls that never wait.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from dhtvpn.dataplane.messages import (
    MAX_MESSAGE,
    Address,
    Command,
    Configure,
    Datagram,
    EraseKeypairs,
    Event,
    Forward,
    InstallKeypair,
    Network,
    NoMember,
    Ready,
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
    decode_event,
    encode,
)
from dhtvpn.dataplane.starter import Child, EngineStarter
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, SystemRefusedError
from dhtvpn.wireguard.keypair import Keypair

log = logging.getLogger(__name__)

START_TIMEOUT_S = 10.0  # ours: a start takes 0.1 s on an idle machine
END_TIMEOUT_S = 2.0  # ours: how long the engine may take to notice that we closed our end
EVENT_BATCH = 256  # events handled before the event loop gets its next turn
MAX_WAITING_COMMANDS = 1 << 16  # ours: an engine that has not read for that long will not come back
CHANNEL_BUFFER = 1 << 20  # bytes of kernel buffer in each direction


class EngineProcess:
    """A running engine. Made by :meth:`start`."""

    def __init__(
        self,
        child: Child,
        starter: EngineStarter | None,
        channel: socket.socket,
        on_event: Callable[[Event], None],
        on_exit: Callable[[int], None] | None,
    ) -> None:
        self._child = child
        self._starter = starter
        self._channel = channel
        self._on_event = on_event
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._closed = False
        self.offloads: tuple[str, ...] = ()
        """Those of messages.OFFLOADS that are on."""
        self._loop.add_reader(channel, self._readable)
        self._watch = asyncio.create_task(self._watch_exit(), name="engine exit")

    @classmethod
    async def start(  # noqa: PLR0917 - what every engine needs comes first, in one order
        cls,
        tun_fd: int,
        sockets: Sequence[socket.socket],
        local_addresses: Iterable[Address],
        mtu: int,
        on_event: Callable[[Event], None],
        on_exit: Callable[[int], None] | None = None,
        *,
        receive: bool = True,
        starter: EngineStarter | None = None,
    ) -> "EngineProcess":
        """Start an engine on the device ``tun_fd`` and UDP sockets, of which the first of a family receives;
        wait until it runs.

        ``on_event`` gets its events; ``on_exit`` its exit code (negative: the signal), if it ends before
        :meth:`close`. ``receive`` False: the sockets are for sending only, and data messages come by
        :meth:`datagram`. The descriptors stay the caller's. ``starter`` was made on the same descriptors;
        without one, the engine gets one of its own, which takes privileges. Raises SystemRefusedError.
        """
        own = None if starter is not None else EngineStarter(tun_fd, sockets, receive=receive)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                for end in (ours, theirs):
                    end.setblocking(False)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BUFFER)
                async with asyncio.timeout(START_TIMEOUT_S):
                    child = await (starter or own).start(theirs)  # type: ignore[union-attr]
        except BaseException as error:
            ours.close()
            if own is not None:
                await own.close()
            if isinstance(error, TimeoutError):
                raise _too_slow() from None
            raise
        engine = cls(child, own, ours, on_event, on_exit)
        try:
            engine.configure(local_addresses, mtu)
            async with asyncio.timeout(START_TIMEOUT_S):
                await engine._ready
        except TimeoutError:
            await engine.close()
            raise _too_slow() from None
        except BaseException:
            await engine.close()
            raise
        return engine

    @property
    def pid(self) -> int:
        return self._child.pid

    def configure(self, local_addresses: Iterable[Address], mtu: int) -> None:
        """The addresses that packets may be delivered to, and the MTU in bytes of peers made later."""
        self._command(Configure(tuple(local_addresses), mtu))

    def set_peer(self, peer: int, allowed_ips: Iterable[Network], endpoint: Endpoint | None) -> None:
        """Make peer number ``peer`` or replace its allowed IPs; None leaves its endpoint as it is."""
        self._command(SetPeer(peer, tuple(allowed_ips), endpoint))

    def remove_peer(self, peer: int) -> None:
        """Forget a peer and its keys."""
        self._command(RemovePeer(peer))

    def resolve(self, networks: Iterable[Network]) -> None:
        """Ask by ``WhoHolds`` for destinations inside ``networks`` that no peer has."""
        self._command(Resolve(tuple(networks)))

    def no_member(self, destination: Address) -> None:
        """The answer to ``WhoHolds`` that nobody does."""
        self._command(NoMember(destination))

    def install_keypair(self, peer: int, keypair: Keypair) -> None:
        """Give the peer the keypair of a completed handshake, and send what waited for it."""
        self._command(
            InstallKeypair(
                peer=peer,
                local_index=keypair.local_index,
                remote_index=keypair.remote_index,
                send_key=keypair.send_key,
                receive_key=keypair.receive_key,
                initiator=keypair.initiator,
                created_at=keypair.created_at,
            )
        )

    def erase_keypairs(self, peer: int) -> None:
        """Forget the peer's keys and what waits for one."""
        self._command(EraseKeypairs(peer))

    def set_endpoint(self, peer: int, endpoint: Endpoint) -> None:
        """Send the peer's datagrams there."""
        self._command(SetEndpoint(peer, endpoint))

    def set_via(
        self, via: int, endpoint: Endpoint | None, carrier: int | None, through: tuple[bytes, ...] = ()
    ) -> None:
        """There is a relay, called ``via``: a volunteer at ``endpoint``, or peer number ``carrier`` and the
        members ``through``."""
        self._command(SetVia(via, endpoint, carrier, through))

    def forward(self, octets_per_s: int) -> None:
        """Send on relay frames of members, so many octets a second."""
        self._command(Forward(octets_per_s))

    def remove_via(self, via: int) -> None:
        """Use relay ``via`` no more."""
        self._command(RemoveVia(via))

    def set_own_relay_ids(self, relay_ids: Iterable[bytes]) -> None:
        """The names that we are reached by through relays."""
        self._command(SetOwnRelayIds(tuple(relay_ids)))

    def set_relay_ids(self, peer: int, relay_ids: Iterable[bytes]) -> None:
        """The names that a peer is reached by through relays, the present one first."""
        self._command(SetRelayIds(peer, tuple(relay_ids)))

    def send_to(self, peer: int, endpoint: Endpoint, plaintext: bytes) -> None:
        """Like :meth:`send`, to ``endpoint`` for this once."""
        self._command(SendTo(peer, endpoint, plaintext))

    def set_source(self, peer: int, address: Address) -> None:
        """Send from this address of ours until the peer's endpoint is another one."""
        self._command(SetSource(peer, address))

    def set_features(self, peer: int, *, trains: bool, udp_trains: bool, aes: bool, blocks: bool) -> None:
        """What the peer takes: trains of TCP and of UDP, data messages of type 5, blocks."""
        self._command(SetFeatures(peer, trains, udp_trains, aes, blocks))

    def send(self, peer: int, plaintext: bytes) -> None:
        """Seal and send a control frame (at most MAX_FRAME bytes), or a keepalive where it is empty."""
        self._command(Send(peer, plaintext))

    def set_path_mtu(self, peer: int, mtu: int) -> None:
        """The longest inner packet, in bytes, that the way to the peer takes: a longer one is answered by
        ICMP."""
        self._command(SetPathMtu(peer, mtu))

    def send_probe(self, peer: int, plaintext: bytes) -> None:
        """Seal ``plaintext`` as long as it is and send it unfragmented. ``ProbeRefused`` tells that our own
        link does not take it."""
        self._command(SendProbe(peer, plaintext))

    def datagram(self, data: bytes, source: Endpoint) -> None:
        """Hand over a data message that came to the control process."""
        self._command(Datagram(data, source))

    async def close(self) -> None:
        """End the engine and wait until it is gone. Safe to repeat."""
        self._closed = True
        self._shut_channel()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await asyncio.shield(self._watch)
        except TimeoutError:
            self._child.kill()
            await self._watch
        if self._starter is not None:
            await self._starter.close()

    def _command(self, command: Command) -> None:
        """Send ``command`` now, or as soon as the engine reads again. Lost where the engine is gone."""
        if self._closed:
            return
        data = encode(command)
        if not self._waiting:
            try:
                self._channel.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._channel, self._writable)
            except OSError:
                return  # it is gone: on_exit says so
            else:
                return
        if len(self._waiting) >= MAX_WAITING_COMMANDS:
            log.error("the engine does not read its commands any more: ending it")
            self._waiting.clear()
            self._shut_channel()
            self._child.kill()
            return
        self._waiting.append(data)

    def _writable(self) -> None:
        try:
            while self._waiting:
                self._channel.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._waiting.clear()
        self._loop.remove_writer(self._channel)

    def _readable(self) -> None:
        for _ in range(EVENT_BATCH):
            if self._closed:
                return
            try:
                data = self._channel.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._channel)
                return
            try:
                event = decode_event(data)
            except DecodeError as error:
                log.error("the engine said something that is no event (%s)", error)
                continue
            if not isinstance(event, Ready):
                self._on_event(event)
            elif not self._ready.done():
                self.offloads = event.offloads
                self._ready.set_result(None)

    async def _watch_exit(self) -> None:
        """See how it ends."""
        code = await self._child.ended
        if not self._ready.done():
            self._ready.set_exception(
                SystemRefusedError(f"the engine process ended at once (exit code {code})")
            )
            self._ready.exception()  # whoever waits gets it; nobody waiting is no mistake
        elif not self._closed:
            self._closed = True
            self._shut_channel()
            if self._on_exit is not None:
                self._on_exit(code)

    def _shut_channel(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._channel.close()


def _too_slow() -> SystemRefusedError:
    return SystemRefusedError(f"the engine process did not start in {START_TIMEOUT_S:.0f} s")
