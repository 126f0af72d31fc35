"""The client of a NAT-PMP gateway (RFC 6886): one mapping."""

from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping import natpmp_messages as messages
from dhtvpn.nat.port_mapping.asking import Channel, ask
from dhtvpn.nat.port_mapping.epoch import Epoch
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.port_mapping.terms import LIFETIME_S, ROOM, Granted, RefusedError, UnusableAddressError

_RELEASE_WAITS_S: Final = (0.3, 0.5)


class NatPmp:
    """The gateway tells its external address before it is asked for a mapping."""

    name = "nat-pmp"

    def __init__(self, port: int, channel: Channel, *, drops: Drops, now: Callable[[], float]) -> None:
        self._port, self._channel = port, channel
        self._drops, self._now = drops, now
        self._epoch = Epoch(pcp=False)
        self._address: IPv4Address | None = None
        self._external_port = port
        self._asked = False

    async def find(self) -> None:
        """Ask for the external address. Raises RefusedError."""
        response = await ask(self._channel, messages.address_request(), messages.decode_address, self._drops)
        self._epoch.lost_state(response.epoch_s, self._now())
        if response.result != messages.SUCCESS:
            raise RefusedError(f"the gateway says {response.result_name}")
        if not is_public(response.address):
            self._drops.count(ROOM, "external_address")
            raise UnusableAddressError(f"the gateway's own address {response.address} is not a public one")
        self._address = response.address

    async def map(self) -> Granted:
        """Raises RefusedError."""
        if self._asked or self._address is None:
            await self.find()  # it may have got another address since
        self._asked = True
        response = await ask(self._channel, self._request(LIFETIME_S), self._read, self._drops)
        self._epoch.lost_state(response.epoch_s, self._now())
        if response.result != messages.SUCCESS:
            raise RefusedError(f"the gateway says {response.result_name}")
        if response.lifetime_s == 0 or response.external_port == 0:
            self._drops.count(ROOM, "nonsense")
            raise RefusedError("the gateway grants nothing that could be used")
        self._external_port = response.external_port
        external = Endpoint(str(self._address), response.external_port)
        return Granted(external, min(response.lifetime_s, LIFETIME_S))

    def heard(self, announcement: bytes) -> bool:
        try:
            response = messages.decode_address(announcement)
        except DecodeError as error:
            self._drops.count(ROOM, error.reason)
            return False
        lost = self._epoch.lost_state(response.epoch_s, self._now())
        return lost or (response.result == messages.SUCCESS and response.address != self._address)

    async def release(self) -> None:
        if self._asked:
            self._asked = False
            with suppress(RefusedError):
                await ask(self._channel, self._request(0), self._read, self._drops, _RELEASE_WAITS_S)

    def close(self) -> None:
        self._channel.close()

    def _read(self, data: bytes) -> messages.MapResponse:
        return messages.decode_map(data, self._port)

    def _request(self, lifetime_s: int) -> bytes:
        return messages.map_request(self._port, self._external_port if lifetime_s else 0, lifetime_s)
