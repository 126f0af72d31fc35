"""The header that a TUN device with IFF_VNET_HDR puts before every packet (virtio 1.2 section 5.1.6).

    offset  size  field
    0       1     flags: 1 = the transport checksum is only begun
    1       1     segmentation: 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 added: TCP with CWR
    2       2     length of all headers
    4       2     segment size: payload bytes of each segment but the last
    6       2     where the checksum starts
    8       2     where it is stored, counted from there

Numbers are in the byte order of the machine. With flag 1 the transport checksum field holds the sum of the
pseudo-header, not inverted, and whoever puts the packet on a wire completes it.
"""

from struct import Struct
from typing import Final

HEADER: Final = Struct("=BBHHHH")
SIZE: Final = HEADER.size
NONE: Final = bytes(SIZE)
"""The header of a packet that is complete as it stands."""

NEEDS_CHECKSUM: Final = 1
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80
KNOWN_GSO: Final = frozenset((GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4))
