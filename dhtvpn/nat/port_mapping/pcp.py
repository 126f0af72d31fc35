"""The client of a PCP server (RFC 6887): one mapping, or one pinhole in an IPv6 firewall."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping import pcp_messages as messages
from dhtvpn.nat.port_mapping.asking import Channel, ask
from dhtvpn.nat.port_mapping.epoch import Epoch
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.port_mapping.terms import (
    LIFETIME_S,
    ROOM,
    Gateway,
    Granted,
    RefusedError,
    UnusableAddressError,
)

_RELEASE_WAITS_S: Final = (0.3, 0.5)


class Pcp:
    """``nonce``: 12 secret octets, the same for this gateway and port in every run, so that a node that was
    killed can take up its mapping again."""

    name = "pcp"

    def __init__(
        self,
        gateway: Gateway,
        port: int,
        channel: Channel,
        *,
        nonce: bytes,
        drops: Drops,
        now: Callable[[], float],
    ) -> None:
        self._gateway, self._port, self._channel = gateway, port, channel
        self._nonce = nonce
        self._drops, self._now = drops, now
        self._epoch = Epoch(pcp=True)
        self._asked = False
        self._external: Endpoint | None = None

    async def find(self) -> None:
        """Ask for the epoch. Raises RefusedError."""
        request = messages.announce_request(self._gateway.own)
        response = await ask(self._channel, request, _read_header, self._drops)
        self._epoch.lost_state(response.epoch_s, self._now())

    async def map(self) -> Granted:
        """Raises RefusedError."""
        self._asked = True
        response = await ask(self._channel, self._request(LIFETIME_S), self._read, self._drops)
        self._epoch.lost_state(response.epoch_s, self._now())
        if response.result != messages.SUCCESS:
            raise RefusedError(f"the gateway says {response.result_name}")
        external = response.external_address
        if response.lifetime_s == 0 or response.external_port == 0:
            self._drops.count(ROOM, "nonsense")
            raise RefusedError("the gateway grants nothing that could be used")
        if external.version != self._gateway.own.version or not is_public(external):
            self._drops.count(ROOM, "external_address")
            await self.release()
            raise UnusableAddressError(f"the gateway's own address {external} is not a public one")
        self._external = Endpoint(str(external), response.external_port)
        return Granted(self._external, min(response.lifetime_s, LIFETIME_S))

    def heard(self, announcement: bytes) -> bool:
        try:
            response = messages.decode(announcement)
        except DecodeError as error:
            self._drops.count(ROOM, error.reason)
            return False
        return response.opcode == messages.ANNOUNCE and self._epoch.lost_state(response.epoch_s, self._now())

    async def release(self) -> None:
        if self._asked:
            self._asked = False
            with suppress(RefusedError):
                await ask(self._channel, self._request(0), self._read, self._drops, _RELEASE_WAITS_S)

    def close(self) -> None:
        self._channel.close()

    def _read(self, data: bytes) -> messages.MapResponse:
        return messages.decode_map(data, self._nonce, self._port)

    def _request(self, lifetime_s: int) -> bytes:
        own = self._gateway.own
        suggested = None
        if self._external is not None and lifetime_s:
            suggested = (type(own)(self._external.host), self._external.port)
        return messages.map_request(
            own, self._nonce, self._port, lifetime_s, suggested or self._wish(lifetime_s)
        )

    def _wish(self, lifetime_s: int) -> tuple[messages.Address, int] | None:
        """The same port outside as inside, at any address."""
        return (type(self._gateway.own)(0), self._port) if lifetime_s else None


def _read_header(data: bytes) -> messages.Response:
    """Raises DecodeError; RefusedError where the gateway is one of NAT-PMP's time (RFC 6886 section 3.5)."""
    if data[:1] == b"\x00":
        raise RefusedError("only NAT-PMP")
    return messages.decode(data)
