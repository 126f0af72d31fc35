"""The topics of one network, made once each, and found again by their DHT keys.

Directories know a topic by its DHT key only. The one whose storing nodes check another signature than the
envelope's (discovery/mainline.py) finds the keys here.
"""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from dhtvpn.records.topic import Topic

MAX_TOPICS = 512
"""Kept; of more, the one used longest ago is made again when it is needed. A topic is in use when its
publication or search begins."""

_Place = tuple[int, str]


class NetworkTopics:
    """Makes the topics of the network with this 32-byte secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._topics: OrderedDict[_Place, Topic] = OrderedDict()
        self._places: dict[bytes, _Place] = {}

    def __repr__(self) -> str:
        return f"NetworkTopics({len(self._topics)} made)"

    def roster(self, epoch: int) -> Topic:
        """Where all members of a small network are."""
        return self._get((epoch, "roster"), lambda: Topic.derive(self._secret, epoch))

    def of_address(self, epoch: int, address: IPv4Address | IPv6Address) -> Topic:
        """Where the member that has the overlay ``address`` is found, and called."""
        place = (epoch, f"address {address}")
        return self._get(place, lambda: Topic.of_address(self._secret, epoch, address))

    def of_name(self, epoch: int, name: str) -> Topic:
        """Where the members called ``name`` are found."""
        return self._get((epoch, f"name {name}"), lambda: Topic.of_name(self._secret, epoch, name))

    def by_dht_key(self, dht_key: bytes) -> Topic | None:
        """The topic that was made here; None for one that was not, or too long ago."""
        place = self._places.get(dht_key)
        return self._topics.get(place) if place is not None else None

    def _get(self, place: _Place, derive: Callable[[], Topic]) -> Topic:
        topic = self._topics.get(place)
        if topic is not None:
            self._topics.move_to_end(place)
            return topic
        topic = self._topics[place] = derive()
        self._places[topic.dht_key] = place
        if len(self._topics) > MAX_TOPICS:
            _, oldest = self._topics.popitem(last=False)
            del self._places[oldest.dht_key]
        return topic
