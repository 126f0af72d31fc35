"""What iperf3, ping and /proc say, read."""

import json
import os

import pytest

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab.bench import processes, report, streams
from dhtvpn.lab.bench.measurements import parse_round_trips

PING = """\
PING 10.88.0.2 (10.88.0.2) 56(84) bytes of data.
64 bytes from 10.88.0.2: icmp_seq=1 ttl=64 time=0.300 ms
64 bytes from 10.88.0.2: icmp_seq=2 ttl=64 time=0.100 ms
64 bytes from 10.88.0.2: icmp_seq=4 ttl=64 time=0.200 ms

--- 10.88.0.2 ping statistics ---
4 packets transmitted, 3 received, 25% packet loss, time 30ms
rtt min/avg/max/mdev = 0.100/0.200/0.300/0.081 ms
"""


def test_a_lost_echo_request_counts_as_its_deadline() -> None:
    assert parse_round_trips(PING) == (0.2, 1000.0)
    assert parse_round_trips(PING.replace("4 packets", "3 packets")) == (0.2, 0.3)


@pytest.mark.parametrize("text", ["", "3 packets transmitted, 0 received", "time=0.1 ms"])
def test_no_reply_is_no_figure(text: str) -> None:
    with pytest.raises(DhtVpnError, match="no echo reply"):
        parse_round_trips(text)


def iperf(**sums: object) -> str:
    return json.dumps({"start": {}, "end": sums})


def test_iperf_one_way_and_both() -> None:
    way = {"bits_per_second": 2e9, "bytes": 1000}
    back = {"bits_per_second": 1e9, "bytes": 500}
    assert streams.parse(iperf(sum_received=way)) == streams.Transfer(2e9, 1000)
    both = iperf(sum_received=way, sum_received_bidir_reverse=back)
    assert streams.parse(both) == streams.Transfer(3e9, 1500)


@pytest.mark.parametrize("text", ["", "[]", "{}", iperf(), iperf(sum_received={"bytes": 1}), "null", "{"])
def test_what_iperf_should_not_say_is_a_sentence(text: str) -> None:
    with pytest.raises(DhtVpnError, match="nothing that could be read"):
        streams.parse(text)


def test_iperfs_own_complaint_is_passed_on() -> None:
    with pytest.raises(DhtVpnError, match="unable to connect"):
        streams.parse(json.dumps({"start": {}, "error": "unable to connect to server"}))


def test_both_directions_are_asked_for() -> None:
    assert "--bidir" in streams.client("10.0.0.1", 3, both=True)
    words = streams.client("10.0.0.1", 3, streams=4)
    assert "--bidir" not in words
    assert words[words.index("-P") + 1] == "4"
    assert words[words.index("-C") + 1] == "cubic"


def test_cpu_ticks_of_a_process_whose_name_is_hostile() -> None:
    fields = ["S", *(str(number) for number in range(4, 53))]
    fields[11], fields[12] = "150", "50"  # utime and stime, fields 14 and 15
    text = f"42 (a) S 1 (b) {' '.join(fields)}"
    assert processes.parse_stat_cpu(text) == pytest.approx(200 / processes._TICKS_PER_S)


def test_the_machines_time() -> None:
    tick = 1 / processes._TICKS_PER_S
    time = processes.parse_machine_time("cpu  1 2 3 1000 1000 4 5 99 99 99\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert time.busy_s == pytest.approx(15 * tick)
    assert time.softirq_s == pytest.approx(5 * tick)
    later = processes.MachineTime(2.0, 1.0).since(processes.MachineTime(0.5, 0.25))
    assert later == processes.MachineTime(1.5, 0.75)


SMAPS = """\
7f0000000000-7f0000001000 r-xp 00001000 fe:01 1234                       /usr/lib/libpython (deleted)
Size:               4096 kB
Rss:                 300 kB
Shared_Clean:        {shared} kB
Shared_Dirty:          0 kB
Private_Clean:         {private} kB
Private_Dirty:         0 kB
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
Rss:                  50 kB
Shared_Clean:          0 kB
Private_Dirty:        50 kB
VmFlags: rd wr mr mw me ac
"""


def test_shared_pages_count_once_and_own_pages_each_time() -> None:
    found = processes.Memory()
    processes.add_smaps(found, SMAPS.format(shared=200, private=100))
    processes.add_smaps(found, SMAPS.format(shared=250, private=50))
    assert found.rss == 700 * 1024
    assert found.own == (100 + 50 + 50 + 50) * 1024
    assert found.total == (250 + 250) * 1024


def test_processes_that_have_gone_count_nothing() -> None:
    assert processes.cpu_seconds([2**22 + 1]) == 0.0
    assert processes.memory([2**22 + 1]).total == 0


def test_this_process_costs_something() -> None:
    own = [os.getpid()]
    assert processes.cpu_seconds(own) > 0
    assert processes.memory(own).rss > 1 << 20


def test_the_processors_name() -> None:
    assert report.processor_name("processor\t: 0\nmodel name\t: Fast One\nmodel name\t: x\n") == "Fast One"
    assert report.processor_name("") != ""
