"""Sender and receiver of many small UDP packets: ``python -m dhtvpn.lab.bench.small_packets``.

sendmmsg(2) and recvmmsg(2) move up to 64 packets per system call, so that the generator leaves the
machine's cores to the tunnel: iperf3 spends one call, and more bookkeeping, on each. Every packet still
passes the kernel's UDP and the tunnel's device by itself; nothing is segmented there.

Both take commands on stdin and answer with one line of JSON on stdout. The sender: ``RATE SECONDS``,
answered by ``sent`` and ``seconds``. The receiver: any line, answered by ``arrived`` since the last one.
"""

import ctypes
import json
import os
import select
import socket
import sys
import time

PAYLOAD = 64
BATCH = 64
"""Packets per system call at most; also the longest burst that a sender that was late sends at once."""

MAX_SLEEP_S = 0.0002
"""The sender wakes up this often, or when the next packet is due."""

RECEIVE_BUFFER = 1 << 23
_SO_RCVBUFFORCE = 33  # socket(7); root may go past net.core.rmem_max
_MSG_DONTWAIT = 0x40


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint32))


class Batch:
    """64 messages for the kernel that all use one buffer: what is in them does not matter."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._buffer = ctypes.create_string_buffer(PAYLOAD)
        self._vector = _IoVec(ctypes.addressof(self._buffer), PAYLOAD)
        self._messages = (_MMsgHdr * BATCH)()
        for message in self._messages:
            message.header.vectors = ctypes.pointer(self._vector)
            message.header.vector_count = 1

    def send(self, descriptor: int, count: int) -> int:
        """Send ``count`` packets, at most 64; returns how many the kernel took."""
        return max(0, int(self._libc.sendmmsg(descriptor, self._messages, count, 0)))

    def receive(self, descriptor: int) -> int:
        """Take what is there, at most 64 packets; returns how many."""
        return max(0, int(self._libc.recvmmsg(descriptor, self._messages, BATCH, _MSG_DONTWAIT, None)))


def send(address: str, port: int) -> None:
    """Do what the lines on stdin say until there are no more."""
    batch = Batch()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, port))
        _say({"ready": True})
        for line in sys.stdin:
            rate, seconds = (float(word) for word in line.split())
            began = time.perf_counter()
            sent = _send_for(batch, sender.fileno(), rate, seconds)
            _say({"sent": sent, "seconds": time.perf_counter() - began})


def _send_for(batch: Batch, descriptor: int, rate: float, seconds: float) -> int:
    """Send at ``rate`` packets/s. A sender that was kept waiting does not make up for more than a batch."""
    sent, credit = 0, 0.0
    began = last = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        credit = min(credit + (now - last) * rate, float(BATCH))
        last = now
        if credit < 1:
            time.sleep(min(MAX_SLEEP_S, (1 - credit) / rate))
            continue
        done = batch.send(descriptor, int(credit))
        sent += done
        credit -= done
    return sent


def receive(address: str, port: int) -> None:
    """Count packets; answer every line on stdin with the count since the last, until stdin ends."""
    batch, arrived = Batch(), 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        receiver.bind((address, port))
        descriptor = receiver.fileno()
        _say({"ready": True})
        while True:
            ready, _, _ = select.select([descriptor, 0], [], [])
            if descriptor in ready:
                arrived += batch.receive(descriptor)
            elif not os.read(0, 4096):
                return
            else:
                _say({"arrived": arrived})
                arrived = 0


def _say(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> int:
    """``send ADDRESS PORT`` or ``receive ADDRESS PORT``."""
    if len(sys.argv) != 4 or sys.argv[1] not in ("send", "receive"):
        sys.stderr.write("usage: small_packets send|receive ADDRESS PORT\n")
        return 2
    {"send": send, "receive": receive}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
