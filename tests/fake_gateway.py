"""A gateway in memory that speaks PCP, NAT-PMP and UPnP, each of them well, badly, or not at all.

Written from the RFCs and the UPnP documents, with none of the client's code.
"""

import asyncio
import errno
import re
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from dhtvpn.nat.port_mapping import http
from dhtvpn.nat.port_mapping.terms import Gateway

GATEWAY = Gateway(IPv4Address("192.168.1.1"), 2, IPv4Address("192.168.1.10"))
GATEWAY6 = Gateway(IPv6Address("fe80::1"), 2, IPv6Address("2001:db8::10"))
PORT = 4690

Answers = Callable[[bytes], list[bytes]]


def silent(request: bytes) -> list[bytes]:
    return []


def packed(address: str) -> bytes:
    """16 octets, as PCP writes it."""
    parsed = ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


class FakeGateway:
    """``mappings``: external port to (owner, lifetime). Time is the event loop's."""

    def __init__(self, external: str = "198.18.0.1") -> None:
        self.external = external
        self.started = asyncio.get_running_loop().time() - 1000
        self.mappings: dict[int, tuple[str, int]] = {}
        self.requests: list[tuple[str, bytes]] = []
        self.pcp: Answers | None = self.pcp_answers
        """None: the port is closed, which the kernel tells by ICMP."""
        self.natpmp: Answers | None = self.natpmp_answers
        self.ssdp: Answers = self.ssdp_answers
        self.web: Callable[[bytes], bytes] = self.web_answer
        self.delay_s = 0.003
        self.granted_lifetime: int | None = None
        self.external_port: int | None = None
        self.nonces: dict[int, bytes] = {}
        self.igd_version = 2
        self.faults: dict[str, list[int]] = {}
        """Action to the errors of its next calls."""
        self.open_sockets = 0
        self.web_hangs = False

    @property
    def epoch(self) -> int:
        return int(asyncio.get_running_loop().time() - self.started)

    def reboot(self) -> None:
        """All mappings are lost, and the clock starts anew."""
        self.mappings.clear()
        self.nonces.clear()
        self.started = asyncio.get_running_loop().time()

    # PCP (RFC 6887)

    def pcp_answers(self, request: bytes) -> list[bytes]:
        version, opcode = request[0], request[1]
        if version != 2:
            return []
        if opcode == 0:
            return [self.pcp_header(0, 0, 0)]
        lifetime = struct.unpack("!I", request[4:8])[0]
        nonce, body = request[24:36], request[24:60]
        internal, suggested = struct.unpack("!HH", body[16:20])
        client = str(ip_address(request[8:24]).ipv4_mapped or ip_address(request[8:24]))  # type: ignore[union-attr]
        external_port = suggested or internal
        if self.nonces.setdefault(external_port, nonce) != nonce:
            return [self.pcp_header(1, 2, 600) + body]
        if lifetime == 0:
            self.mappings.pop(external_port, None)
            self.nonces.pop(external_port, None)
            return [self.pcp_header(1, 0, 0) + body]
        granted = lifetime if self.granted_lifetime is None else self.granted_lifetime
        told = external_port if self.external_port is None else self.external_port
        self.mappings[external_port] = (client, granted)
        external = client if ":" in client else self.external
        answer = nonce + body[12:18] + struct.pack("!H", told) + packed(external)
        return [self.pcp_header(1, 0, granted) + answer]

    def pcp_header(self, opcode: int, result: int, lifetime: int) -> bytes:
        return struct.pack("!BBBBII12x", 2, 0x80 | opcode, 0, result, lifetime, self.epoch)

    # NAT-PMP (RFC 6886)

    def natpmp_answers(self, request: bytes) -> list[bytes]:
        if request[0] != 0:
            return [struct.pack("!BBHI", 0, 0x80 | request[1] & 0x7F, 1, self.epoch)]
        if request[1] == 0:
            return [self.natpmp_address()]
        internal, suggested, lifetime = struct.unpack("!HHI", request[4:12])
        external_port = suggested or internal
        if lifetime == 0:
            self.mappings.pop(internal, None)
        else:
            self.mappings[external_port] = (str(GATEWAY.own), lifetime)
        granted = lifetime if self.granted_lifetime is None else self.granted_lifetime
        told = external_port if self.external_port is None else self.external_port
        return [struct.pack("!BBHIHHI", 0, 0x81, 0, self.epoch, internal, told, granted)]

    def natpmp_address(self) -> bytes:
        return struct.pack("!BBHI", 0, 0x80, 0, self.epoch) + ip_address(self.external).packed

    # UPnP

    def ssdp_answers(self, request: bytes) -> list[bytes]:
        target = re.search(rb"\nST: (\S+)", request)
        assert target is not None
        if int(target[1][-1:]) > self.igd_version:
            return []
        return [ssdp_answer("http://192.168.1.1:5000/rootDesc.xml", target[1].decode())]

    def web_answer(self, request: bytes) -> bytes:
        if request.startswith(b"GET /rootDesc.xml "):
            return answer(200, description(self.igd_version))
        assert request.startswith(b"POST /ctl/IPConn "), request
        action_header = re.search(rb'SOAPAction: "(\S+)#(\w+)"', request)
        assert action_header is not None
        kind, action = action_header[1].decode(), action_header[2].decode()
        if faults := self.faults.get(action):
            return answer(500, fault(faults.pop(0)))
        arguments = dict(re.findall(r"<(New\w+)>([^<]*)</", request.decode()))
        result = self.upnp_call(action, arguments)
        return answer(200, soap_answer(kind, action, result))

    def upnp_call(self, action: str, arguments: dict[str, str]) -> dict[str, str]:
        if action == "GetExternalIPAddress":
            return {"NewExternalIPAddress": self.external}
        assert arguments["NewProtocol"] == "UDP" and arguments["NewRemoteHost"] == ""
        port = int(arguments["NewExternalPort"])
        if action == "DeletePortMapping":
            self.mappings.pop(port, None)
            return {}
        assert arguments["NewInternalPort"] == str(PORT) and arguments["NewEnabled"] == "1"
        self.mappings[port] = (arguments["NewInternalClient"], int(arguments["NewLeaseDuration"]))
        told = port if self.external_port is None else self.external_port
        return {"NewReservedPort": str(told)} if action == "AddAnyPortMapping" else {}

    # What the client's methods use

    def port_channel(self, protocol: str) -> "FakeChannel":
        return FakeChannel(self, protocol)

    async def fetch(self, port: int, request: bytes) -> http.Response:
        assert port == 5000
        self.requests.append(("http", request))
        if self.web_hangs:
            raise TimeoutError
        await asyncio.sleep(self.delay_s)
        response = http.Response()
        data = self.web(request)
        for at in range(0, len(data), 1000):
            response.feed(data[at : at + 1000])
        response.end()
        return response


class FakeChannel:
    """Datagrams to the gateway and back (asking.Channel)."""

    def __init__(self, gateway: FakeGateway, protocol: str) -> None:
        self._gateway, self._protocol = gateway, protocol
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._open = True
        gateway.open_sockets += 1

    def send(self, data: bytes) -> None:
        assert self._open
        self._gateway.requests.append((self._protocol, data))
        answers: Answers | None = getattr(self._gateway, self._protocol)
        found = [None] if answers is None else answers(data)
        for each in found:
            asyncio.get_running_loop().call_later(self._gateway.delay_s, self._waiting.put_nowait, each)

    async def receive(self) -> bytes:
        data = await self._waiting.get()
        if data is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return data

    def close(self) -> None:
        if self._open:
            self._open = False
            self._gateway.open_sockets -= 1


def ssdp_answer(location: str, target: str = "urn:schemas-upnp-org:device:InternetGatewayDevice:1") -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {target}\r\n"
        f"USN: uuid:1::{target}\r\nEXT:\r\nLOCATION: {location}\r\n\r\n"
    ).encode()


def answer(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def description(version: int, control: str = "/ctl/IPConn", more: str = "") -> bytes:
    kind = f"urn:schemas-upnp-org:service:WANIPConnection:{version}"
    return (
        f'<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">{more}<device>'
        "<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>"
        "<deviceList><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1"
        "</serviceType><controlURL>/ctl/L3F</controlURL></service>"
        f"<service><serviceType>{kind}</serviceType><controlURL>{control}</controlURL></service>"
        "</serviceList></device></deviceList></device></deviceList></device></root>"
    ).encode()


def soap_answer(kind: str, action: str, result: dict[str, str]) -> bytes:
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in result.items())
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:{action}Response xmlns:u="{kind}">{inside}</u:{action}Response></s:Body></s:Envelope>'
    ).encode()


def fault(code: int) -> bytes:
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
        "<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{code}</errorCode><errorDescription>no</errorDescription></UPnPError></detail>"
        "</s:Fault></s:Body></s:Envelope>"
    ).encode()
