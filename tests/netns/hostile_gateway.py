"""A gateway that answers the search for UPnP, and then does harm by HTTP; PCP and NAT-PMP get noise.

python hostile_gateway.py endless|gigabyte|slow|redirect|noise
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
from typing import Any

HTTP_PORT = 5000


class Noise(asyncio.DatagramProtocol):
    """Answers each datagram with a hundred."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        for size in range(100):
            self.transport.sendto(os.urandom(size * 14 + 1), address)


class Ssdp(Noise):
    """Says that the description is here."""

    noisy = False

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if self.noisy:
            super().datagram_received(data, address)
            return
        host = self.own_address(address[0])
        answer = (
            "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
            f"LOCATION: http://{host}:{HTTP_PORT}/root.xml\r\n\r\n"
        )
        self.transport.sendto(answer.encode(), address)

    @staticmethod
    def own_address(client: str) -> str:
        """The address that faces ``client``."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((client, 9))
            return str(probe.getsockname()[0])


async def serve(how: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        if how == "redirect":
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /root.xml\r\nContent-Length: 0\r\n\r\n")
        elif how == "gigabyte":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
            for _ in range(16384):
                writer.write(bytes(65536))
                await writer.drain()
        elif how == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n<root>")
            while True:
                writer.write(b"<a>" * 20000)
                await writer.drain()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.5)
        await writer.drain()
    writer.close()


async def main(how: str) -> None:
    loop = asyncio.get_running_loop()
    Ssdp.noisy = how == "noise"
    await loop.create_datagram_endpoint(Noise, ("0.0.0.0", 5351))
    await asyncio.start_server(lambda reader, writer: serve(how, reader, writer), "0.0.0.0", HTTP_PORT)
    ssdp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ssdp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ssdp.bind(("0.0.0.0", 1900))
    group = struct.pack("=4s4si", socket.inet_aton("239.255.255.250"), bytes(4), socket.if_nametoindex("lan"))
    ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    await loop.create_datagram_endpoint(Ssdp, sock=ssdp)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
