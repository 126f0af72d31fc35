"""The packet generator's system calls, on loopback."""

import socket

from dhtvpn.lab.bench.small_packets import BATCH, PAYLOAD, Batch


def test_a_batch_goes_out_as_separate_packets_and_is_counted() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        batch = Batch()
        assert batch.send(sender.fileno(), 5) == 5
        receiver.settimeout(5)
        assert [len(receiver.recv(2048)) for _ in range(2)] == [PAYLOAD, PAYLOAD]
        assert batch.receive(receiver.fileno()) == 3
        assert batch.receive(receiver.fileno()) == 0
        assert batch.send(sender.fileno(), BATCH) == BATCH


def test_a_closed_receiver_costs_a_packet_but_no_exception() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 0))
            sender.connect(receiver.getsockname())
        batch = Batch()
        assert all(batch.send(sender.fileno(), 1) in (0, 1) for _ in range(4))
