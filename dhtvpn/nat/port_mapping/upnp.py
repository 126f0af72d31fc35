"""The client of a UPnP gateway (WANIPConnection and WANPPPConnection, versions 1 and 2): one mapping.

One that refuses a lease that ends gets one that does not; it is taken back like the others.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final, Protocol

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping import description, http, soap, ssdp
from dhtvpn.nat.port_mapping.asking import MAX_ANSWERS, Channel
from dhtvpn.nat.port_mapping.description import Service
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.port_mapping.terms import (
    LIFETIME_S,
    ROOM,
    Gateway,
    Granted,
    RefusedError,
    UnusableAddressError,
)
from dhtvpn.nat.port_mapping.url import GatewayUrl

SEARCH_WAITS_S: Final = (0.3, 0.7, 2.0)
"""After each search for the gateway; it may take up to a second (MX) to answer."""
MAX_LOCATIONS: Final = 4
"""Descriptions that are fetched in one search; a gateway has one, or one for each version."""
PORT_TRIES: Final = 3
"""External ports tried where the gateway does not choose one itself."""
NAME: Final = "dhtvpn"  # shown in the gateway's list
_FIRST_PORT: Final = 49152  # of the dynamic ports (RFC 6335 section 6)
_RELEASE_S: Final = 0.9


class Web(Protocol):
    """Fetches from one gateway by HTTP."""

    async def __call__(self, port: int, request: bytes) -> http.Response:
        """A complete answer. Raises OSError, TimeoutError, DecodeError."""
        ...


class Upnp:
    """``random_bytes`` chooses other external ports where ours is taken."""

    name = "upnp"

    def __init__(
        self,
        gateway: Gateway,
        port: int,
        channel: Channel,
        web: Web,
        *,
        drops: Drops,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._host, self._own = str(gateway.address), str(gateway.own)
        self._port, self._channel, self._web = port, channel, web
        self._drops, self._random_bytes = drops, random_bytes
        self._service: Service | None = None
        self._address = ""
        self._external_port = port
        self._lifetime_s = LIFETIME_S
        self._mapped = False

    async def find(self) -> None:
        """Search the gateway, read its description, and ask for its external address. Raises RefusedError."""
        tried: set[GatewayUrl] = set()
        refusal = RefusedError("no answer")
        left = MAX_ANSWERS
        for wait_s in SEARCH_WAITS_S:
            try:
                for request in ssdp.search_requests():
                    self._channel.send(request)
                async with asyncio.timeout(wait_s):
                    while left > 0:
                        left -= 1
                        location = self._location(await self._channel.receive())
                        if location is None or location in tried or len(tried) >= MAX_LOCATIONS:
                            continue
                        tried.add(location)
                        break
                    else:
                        self._drops.count(ROOM, "too_many_answers")
                        raise RefusedError("answers with garbage")
            except TimeoutError:
                continue
            except OSError as error:
                raise RefusedError(error.strerror or "no way there") from error
            try:
                await self._look_at(location)
                return
            except UnusableAddressError:
                raise
            except RefusedError as error:
                refusal = error
        raise refusal

    async def map(self) -> Granted:
        """Raises RefusedError."""
        service = self._service
        if service is None:
            raise RefusedError("no answer")
        if self._mapped:
            address = await self._external_address(service)  # it may have got another since
        else:
            address = self._address
        self._mapped = True
        if service.chooses_ports:
            await self._add_any(service)
        else:
            await self._add(service)
        return Granted(Endpoint(address, self._external_port), LIFETIME_S)

    def heard(self, announcement: bytes) -> bool:
        """Never: announcements are of the other protocols."""
        return False

    async def release(self) -> None:
        if self._mapped and self._service is not None:
            self._mapped = False
            with suppress(RefusedError, soap.FaultError, TimeoutError):
                async with asyncio.timeout(_RELEASE_S):
                    await self._call(self._service, "DeletePortMapping", self._names())

    def close(self) -> None:
        self._channel.close()

    def _location(self, answer: bytes) -> GatewayUrl | None:
        try:
            return ssdp.decode(answer, self._host)
        except DecodeError as error:
            self._drops.count(ROOM, error.reason)
            return None

    async def _look_at(self, location: GatewayUrl) -> None:
        """Choose the first service that has an external address. Raises RefusedError."""
        document = await self._fetch(location, None, {})
        try:
            services = description.decode(document, location, self._host)
        except DecodeError as error:
            self._drops.count(ROOM, error.reason)
            raise RefusedError("its description cannot be read") from error
        refusal = RefusedError("it has no service that maps ports")
        for service in services:
            try:
                self._address = await self._external_address(service)
            except UnusableAddressError:
                raise
            except RefusedError as error:
                refusal = error
                continue
            self._service = service
            return
        raise refusal

    async def _external_address(self, service: Service) -> str:
        """Raises RefusedError."""
        try:
            answer = await self._call(service, "GetExternalIPAddress", {})
            address = IPv4Address(answer.get("NewExternalIPAddress", ""))
        except soap.FaultError as error:
            raise RefusedError(f"the gateway says error {error.code}") from error
        except ValueError as error:
            self._drops.count(ROOM, "external_address")
            raise RefusedError("it tells no external address") from error
        if not is_public(address):
            self._drops.count(ROOM, "external_address")
            raise UnusableAddressError(f"the gateway's own address {address} is not a public one")
        return str(address)

    async def _add_any(self, service: Service) -> None:
        """AddAnyPortMapping: the gateway takes another port where ours is taken. Raises RefusedError."""
        try:
            answer = await self._call(service, "AddAnyPortMapping", self._arguments())
        except soap.FaultError:
            await self._add(service)  # some that call themselves version 2 do not have it
            return
        text = answer.get("NewReservedPort", "")
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
            self._drops.count(ROOM, "nonsense")
            raise RefusedError("the gateway grants nothing that could be used")
        self._external_port = int(text)

    async def _add(self, service: Service) -> None:
        """AddPortMapping, with another port or lease where the gateway's error asks for it.

        Raises RefusedError.
        """
        code = 0
        for _ in range(PORT_TRIES + 1):
            try:
                await self._call(service, "AddPortMapping", self._arguments())
                return
            except soap.FaultError as error:
                code = error.code
            if code == soap.ONLY_PERMANENT_LEASES and self._lifetime_s:
                self._lifetime_s = 0
            elif code == soap.CONFLICT:
                self._external_port = self._other_port()
            elif code == soap.SAME_PORT_REQUIRED and self._external_port != self._port:
                self._external_port = self._port
            else:
                break
        raise RefusedError(f"the gateway says error {code}")

    def _other_port(self) -> int:
        return _FIRST_PORT + int.from_bytes(self._random_bytes(2), "big") % (65536 - _FIRST_PORT)

    def _names(self) -> dict[str, str | int]:
        """What a mapping is told apart by."""
        return {"NewRemoteHost": "", "NewExternalPort": self._external_port, "NewProtocol": "UDP"}

    def _arguments(self) -> dict[str, str | int]:
        return self._names() | {
            "NewInternalPort": self._port,
            "NewInternalClient": self._own,
            "NewEnabled": 1,
            "NewPortMappingDescription": NAME,
            "NewLeaseDuration": self._lifetime_s,
        }

    async def _call(
        self, service: Service, action: str, arguments: Mapping[str, str | int]
    ) -> dict[str, str]:
        """Raises FaultError, RefusedError."""
        body = soap.body(service.kind, action, arguments)
        document = await self._fetch(service.control, body, soap.headers(service.kind, action))
        try:
            return soap.decode(document, action)
        except soap.FaultError:
            raise
        except DecodeError as error:
            self._drops.count(ROOM, error.reason)
            raise RefusedError("its answer cannot be read") from error

    async def _fetch(self, url: GatewayUrl, body: bytes | None, fields: Mapping[str, str]) -> bytes:
        """The body of the answer: of a document, or of a call, where errors have one too."""
        try:
            answer = await self._web(url.port, http.request(self._host, url.path, url.port, fields, body))
        except DecodeError as error:
            self._drops.count(ROOM, error.reason)
            raise RefusedError("its web server talks nonsense") from error
        except TimeoutError as error:
            self._drops.count(ROOM, "http_timeout")
            raise RefusedError("its web server is too slow") from error
        except OSError as error:
            raise RefusedError("its web server does not answer") from error
        allowed = (200,) if body is None else (200, 500)  # 500: a fault (SOAP 1.1 section 6.2)
        if answer.status not in allowed:
            self._drops.count(ROOM, "http_status")
            raise RefusedError(f"its web server says {answer.status}")
        return answer.body
