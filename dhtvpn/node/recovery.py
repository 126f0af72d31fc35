"""What is done when the ground moves: another network, a machine that has slept, paths that fall silent.

Paths are doubted at once, not taken down: where the old one still works, a ping and its answer is all that it
costs. Where it does not, the peer's next packet comes from elsewhere and is followed (roaming), or both sides
connect anew: our record goes out with what the new network gives us, and whoever gets it meets us there.

After a short sleep nothing else is done where every peer answers: we may have been taken for asleep wrongly,
and if not, all is well.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from dhtvpn.discovery.sources import Dht
from dhtvpn.mesh.peers import Peer, PeerState
from dhtvpn.mesh.relayed import is_relayed
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.members import Member
from dhtvpn.node.surveying import Surveying
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.node.waking import Waking, no_account
from dhtvpn.system.links import NetworkFacts, network_facts
from dhtvpn.system.network_watch import NetworkWatch

log = logging.getLogger(__name__)

MAX_ASKED: Final = 16
"""DHT nodes asked when we come from another network, so that they push to where we are now."""

LONG_SLEEP_S: Final = 15.0
"""After this nobody is asked first: a mapping that nobody has tried is left idle for no longer while we are
awake, and after minutes peers have given up our session."""

ANSWER_S: Final = 0.3
"""How long peers are waited for after a shorter one. Ours: most round trips take less, and not much is gone
of the two seconds in which paths have to be back."""


class Recovery:
    """Watches the ground and acts. ``announce`` publishes the record again even if nothing in it is new."""

    def __init__(
        self,
        *,
        interface: str,
        members: Callable[[], Sequence[Member]],
        tunnels: Tunnels,
        liveness: Liveness,
        lost: Callable[[Peer], None],
        network_changed: Callable[[], None],
        surveying: Surveying,
        dht: Dht | None,
        announce: Callable[[], None],
        say: Callable[[str, str], None],
        in_background: Callable[[Coroutine[Any, Any, object]], None],
        wanted_to_run: Callable[[], float] = no_account,
        lan: bool = False,
    ) -> None:
        """``wanted_to_run`` is for :class:`Waking`. ``lan``: members are looked for on the local links, so
        that a machine with link-local addresses alone is on a network."""
        self._members = members
        self._tunnels = tunnels
        self._liveness = liveness
        self._lost = lost
        self._network_changed = network_changed
        self._surveying = surveying
        self._dht = dht
        self._announce = announce
        self._say = say
        self._in_background = in_background
        self.watch = NetworkWatch(
            self.network_changed,
            exclude_interfaces=(interface,),
            read=partial(network_facts, link_local=lan),
        )
        self.waking = Waking(self.woke, wanted_to_run=wanted_to_run)
        self.changes = 0
        """How often the network has changed or the machine has woken."""

    @property
    def families(self) -> frozenset[int]:
        """The IP versions that this machine has addresses of; both where that is not known, or while there
        are none at all: a cable that is out for a moment is no reason to leave anything."""
        facts = self.watch.facts
        found = frozenset(address.version for address in facts.addresses) if facts else frozenset[int]()
        return found or frozenset((4, 6))

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self.watch.run(), self.waking.run())

    def network_changed(self, facts: NetworkFacts) -> None:
        """There are other addresses or default routes than before."""
        self.changes += 1
        if not facts.usable:
            self._say("network", "this machine has no network")
            return
        own = facts.addresses or [f"{each.address}%{each.interface}" for each in facts.link_locals]
        self._say("network", f"the network is another one: {', '.join(map(str, own[:4]))}")
        self._begin_anew(self._members(), handshake=False)

    def woke(self, missed_s: float) -> None:
        """The machine, or this process, has stood still for so long."""
        self.changes += 1
        self._say("network", f"this machine has slept for {missed_s:.0f} s")
        if missed_s >= LONG_SLEEP_S:
            self._begin_anew(self._members(), handshake=True)
        else:
            self._in_background(self._look_around())

    async def _look_around(self) -> None:
        """A ping to every peer first. An answer to it proves more than a packet that has waited for us."""
        connected = [each for each in self._members() if each.peer.state is PeerState.CONNECTED]
        answers = await asyncio.gather(*(self._liveness.ping(each.peer, ANSWER_S) for each in connected))
        well = {
            each.peer.number for each, rtt_ms in zip(connected, answers, strict=True) if rtt_ms is not None
        }
        if not well or len(well) < len(connected):
            others = [each for each in self._members() if each.peer.number not in well]
            self._begin_anew(others, handshake=True)

    def path_lost(self) -> None:
        """A path fell silent. Perhaps our router has another mapping for us now."""
        self._network_changed()  # an address of ours may be there still, and lead nowhere
        self._surveying.soon(afresh=False)

    def surveyed(self) -> None:
        """We know, as far as anybody answers, what the outside sees of us in the new network."""
        self._in_background(self._tell())

    async def _tell(self) -> None:
        """First whoever can be reached from here is asked, so that the record has somewhere to go."""
        if self._dht is not None:
            asked = dict.fromkeys([*self._surveying.servers, *self._dht.contacts()])
            await self._dht.bootstrap(list(asked)[:MAX_ASKED])
        self._announce()

    def _begin_anew(self, members: Sequence[Member], *, handshake: bool) -> None:
        self._network_changed()
        self._liveness.network_changed()
        for member in members:
            self._tunnels.network_changed(member.peer)
            direct = not is_relayed(member.peer.endpoint)
            if member.peer.state is PeerState.CONNECTED:
                if handshake:  # the peer may have given up the session's keys
                    self._tunnels.initiate(member.peer)
                self._doubt(member)
                if direct:
                    continue
            member.connector.try_now()
        self._surveying.soon(afresh=True)

    def _doubt(self, member: Member) -> None:
        """Ask whether the peer is still there, unless we have no address any more to ask from."""
        facts, endpoint = self.watch.facts, member.peer.endpoint
        if is_relayed(endpoint):
            self._liveness.doubt(member.peer)
            return
        version = 6 if endpoint is not None and endpoint.is_ipv6 else 4
        near = endpoint is not None and endpoint.is_link_local and facts is not None and facts.usable
        if near or facts is None or any(address.version == version for address in facts.addresses):
            self._liveness.doubt(member.peer)
        else:
            self._lost(member.peer)
