"""Foresees the port that our NAT gives us towards a peer, and has the peer check it.

Without that no direct path comes up where our mapping depends on the destination and the peer's NAT lets in
only what comes from the very port asked.

Where our NAT hands ports out in order (the survey tells), each attempt begins with three datagrams in a row:
a look from a new port of ours, one that opens our mapping towards the peer, and a look from another new port.
An attempt that has begun before the survey was over is made up for: the survey's own ports take the place of
the first look. The ports between those that the two looks find go to the peer in a signal through the relay;
it checks each of them once, which opens its own NAT for our checks (docs/adr/0016-port-prediction.md).
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError, TimedOutError
from dhtvpn.mesh.peers import Peer
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.port_prediction import EARLIER, FAILURES, MAX_GUESSES, between, right_before
from dhtvpn.nat.reflexive import ask
from dhtvpn.nat.stun_messages import binding_indication
from dhtvpn.node.members import Member
from dhtvpn.node.surroundings import PortsInOrder, Surroundings
from dhtvpn.records.record import Candidate, CandidateKind, PublishedFiltering, PublishedMapping

log = logging.getLogger(__name__)

PLACES: Final = 2
"""Public endpoints of a peer towards which a port is foreseen: one, and one that its router has opened."""

SOON_S: Final = 1.0
"""Between an attempt and a survey that still tells of the ports used in it."""

LOOK_S: Final = 2.0
"""A look that takes longer comes too late for the attempt."""

Look = asyncio.Task[Endpoint | None]
"""Where a server has seen a new port of ours; None: it has not answered."""


@dataclass
class Tries:
    """What has become of foreseeing our port towards one peer."""

    peer: Peer
    network: int
    """Which of the networks that this machine has been in."""
    opened_at: float | None = None
    """Since when there may be a mapping that no look was taken at (the loop's time)."""
    places: tuple[Endpoint, ...] = ()
    guesses: tuple[Endpoint, ...] = ()
    """Where the peer may see us; those of the last attempt first."""
    told: bool = False
    """The peer knows of them, in the attempt under way."""
    failed: int = 0
    """Attempts that found no direct path although it did."""
    worked: bool = False
    """One of them led to a path: what was guessed then tells nothing of the mapping after that."""


class Prediction:
    """``member`` gives what is known of a peer, ``network`` a number that changes with the network of this
    machine. ``open_port`` opens a new port, ours to close; ``send`` sends from the node's own one, and
    ``may_probe`` says whether an endpoint that a peer has named gets one more datagram. ``tell`` sends a peer
    a signal."""

    def __init__(
        self,
        *,
        surroundings: Surroundings,
        member: Callable[[Peer], Member | None],
        network: Callable[[], int],
        open_port: Callable[[], Awaitable[UdpPort]],
        send: Callable[[bytes, Endpoint], object],
        may_probe: Callable[[Endpoint], bool],
        tell: Callable[[Peer], None],
        in_background: Callable[[Coroutine[Any, Any, object]], None],
    ) -> None:
        self._surroundings, self._member, self._network = surroundings, member, network
        self._open_port, self._send, self._may_probe = open_port, send, may_probe
        self._tell, self._in_background = tell, in_background
        self._tries: dict[int, Tries] = {}

    def tries(self, peer: Peer) -> Tries:
        """What has been tried, and has failed, in this network."""
        tries, network = self._tries.get(peer.number), self._network()
        return tries if tries is not None and tries.network == network else Tries(peer, network)

    async def attempt_begins(self, peer: Peer) -> None:
        """Nothing has been sent to ``peer`` yet in this attempt at a direct path: open our mapping to it
        between two looks. Waits for no answer."""
        tries = self._tries[peer.number] = self.tries(peer)
        tries.told, tries.places = False, self._places(peer)
        order = self._surroundings.ports_in_order
        if order is None:
            tries.opened_at = tries.opened_at or asyncio.get_running_loop().time()
        elif tries.places and tries.failed < FAILURES:
            before = await self._look(order)
            self._open_mapping(tries)
            after = await self._look(order)
            self._in_background(self._guess(tries, before, after))

    def surveyed(self) -> None:
        """A survey is over. Where it has found order, make up for attempts that did not wait for it."""
        order = self._surroundings.ports_in_order
        if order is None:
            return
        for tries in self._tries.values():
            opened_at, tries.opened_at = tries.opened_at, None
            if tries.places and opened_at is not None and abs(opened_at - order.asked_at) < SOON_S:
                self._in_background(self._look_behind(tries, order))

    async def _look_behind(self, tries: Tries, order: PortsInOrder) -> None:
        """The mapping was made soon before or after those of the survey, and before this."""
        self._open_mapping(tries)
        if (after := await (await self._look(order))) is not None:
            ports = [*between(order.seen[-1], after), *right_before(order.seen[0])]
            self._take(tries, after.host, ports)

    def for_signal(self, peer: Peer) -> tuple[Candidate, ...]:
        """What a signal to ``peer`` says of it: nothing where its NAT does not ask for our port. Until a peer
        knows whether it does, it is taken to: most do."""
        tries, member = self.tries(peer), self._member(peer)
        if member is None or tries.failed >= FAILURES or tries.worked or not tries.guesses:
            return ()
        one_mapping = member.nat.mapping in (PublishedMapping.NONE, PublishedMapping.ENDPOINT_INDEPENDENT)
        if not one_mapping or member.nat.filtering is PublishedFiltering.NOT_BY_PORT:
            return ()
        tries.told = True
        return tuple(Candidate(guess, CandidateKind.PREDICTED) for guess in tries.guesses)

    def attempt_failed(self, peer: Peer) -> None:
        """There is no direct path to ``peer``."""
        tries = self.tries(peer)
        if tries.told:
            tries.failed += 1
            tries.told = False

    def found(self, peer: Peer) -> None:
        """There is a direct path to ``peer``."""
        if (tries := self._tries.get(peer.number)) is not None:
            tries.worked, tries.failed = True, 0

    def led_to(self, peer: Peer) -> bool:
        """Whether a foreseen port, ours or the peer's, has brought about the path in use."""
        tries, member = self.tries(peer), self._member(peer)
        if tries.told and peer.endpoint in tries.places:
            return True
        return member is not None and peer.endpoint in member.connector.predicted

    def forget(self, peer: Peer) -> None:
        """``peer`` is gone."""
        self._tries.pop(peer.number, None)

    def _places(self, peer: Peer) -> tuple[Endpoint, ...]:
        """Where a foreseen port may help: towards public IPv4 endpoints, unless strangers get in there, or
        the peer's own port cannot be known."""
        member = self._member(peer)
        if member is None or member.nat.mapping is PublishedMapping.DEPENDENT:
            return ()
        if member.nat.filtering is PublishedFiltering.NOT_BY_PORT:
            return ()
        told = [candidate.endpoint for candidate in member.connector.candidates]
        ipv4 = [place for place in told if not place.is_ipv6 and is_public(ip_address(place.host))]
        return tuple(ipv4[:PLACES])

    def _open_mapping(self, tries: Tries) -> None:
        for place in tries.places:
            if self._may_probe(place):
                self._send(binding_indication(os.urandom(12)), place)

    async def _look(self, order: PortsInOrder) -> Look:
        """Ask now where a new port of ours is seen. The question is out when this returns."""
        look = asyncio.create_task(_seen(self._open_port, order))
        await asyncio.sleep(0)
        return look

    async def _guess(self, tries: Tries, before: Look, after: Look) -> None:
        """Where there is nothing between the looks the mapping is an older one: of the attempt before, or of
        a packet that has left since the NAT has forgotten that."""
        first, last = await before, await after
        if first is not None and last is not None:
            lasting = () if tries.worked else tries.guesses
            known = [guess.port for guess in lasting if guess.host == last.host]
            ports = between(first, last)
            unseen = [*known[: MAX_GUESSES - EARLIER], *right_before(first)]
            self._take(tries, last.host, [*ports, *known] if ports else unseen)

    def _take(self, tries: Tries, host: str, ports: Sequence[int]) -> None:
        """The peer may see us there, at the first of these most likely."""
        if tries.peer.path == "direct":
            return
        likely = list(dict.fromkeys(ports))[:MAX_GUESSES]
        tries.guesses, tries.worked = tuple(Endpoint(host, port) for port in likely), False
        log.info("peer %s: may see us at %s, port %s", tries.peer.id, host, likely)
        if tries.peer.relayed and tries.guesses:
            self._tell(tries.peer)


async def _seen(open_port: Callable[[], Awaitable[UdpPort]], order: PortsInOrder) -> Endpoint | None:
    """The server is a stranger: an address where nobody has seen us before is not believed."""
    try:
        port = await open_port()
    except SystemRefusedError as error:
        log.warning("no port for a look at our NAT: %s", error)
        return None
    try:
        seen = await ask(port, order.witness, LOOK_S)
    except TimedOutError:
        return None
    finally:
        port.close()
    return seen if seen.host == order.seen[0].host else None
