"""What is done when this machine's place in the network has changed, or is known better."""

import logging

from dhtvpn.nat.reflexive import Mapping
from dhtvpn.node.parts import Parts

log = logging.getLogger(__name__)


class NetworkEvents:
    """Called by whoever looks: surveys, the router's mappings, volunteers, the directory."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def changed(self) -> None:
        """The network may be another one, or our router have another mapping for us."""
        self._parts.port.network_changed()
        self._parts.relaying.client.network_changed(self._parts.recovery.families)
        if self._parts.port_mapper is not None:
            self._parts.port_mapper.look_again()

    def mapping_changed(self) -> None:
        """The router forwards other ports to us than before."""
        before = self._parts.surroundings.candidates()
        if self._parts.port_mapper is not None:
            self._parts.surroundings.mapped_endpoints = self._parts.port_mapper.endpoints
        if self._parts.surroundings.candidates() != before:
            self._candidates_changed()
        self._parts.events.wake()

    def surveyed(self, afresh: bool) -> None:
        """A survey has changed what we know of the outside, or was asked for with ``afresh``."""
        steady = self._parts.surroundings.mapping is not Mapping.ADDRESS_AND_PORT_DEPENDENT
        self._parts.reporter.seen_from_outside(self._parts.surroundings.public_endpoints, steady=steady)
        self._parts.members.links_changed()
        self._parts.prediction.surveyed()
        if afresh:
            self._parts.relaying.client.network_changed(self._parts.recovery.families)
            self._parts.recovery.surveyed()
            self._parts.signals.send_to_relayed()
            for peer in self._parts.table.connected():
                if self._parts.members.of(peer) is not None:
                    self._parts.direct_probes.wanted(peer)
        else:
            self._candidates_changed()

    def _candidates_changed(self) -> None:
        self._parts.announcer.announce()
        self._parts.signals.send_to_relayed()

    def homes_changed(self) -> None:
        """Other volunteers relay for us than before."""
        self._parts.announcer.announce()

    def directory_reached(self) -> None:
        """The directory answers for the first time, or again."""
        if self._parts.surveying.done.is_set() and not self._parts.surroundings.answered:
            self._parts.surveying.soon(afresh=True)  # the survey has given up asking so often
        self._parts.announcer.announce()
        self._parts.events.wake()

    def published(self, stores: int) -> None:
        """Our record is with so many storing nodes."""
        log.debug("record published, %d other nodes hold it", stores)
        self._parts.on_demand.follow()
        self._parts.events.wake()
