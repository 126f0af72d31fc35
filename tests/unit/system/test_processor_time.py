"""Who is stopped wants no processor; who has to share one wants it all the time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dhtvpn.system.processor_time import ProcessorTime

STOPPED_S = 0.6

REPORTER = """
import sys, time
from dhtvpn.system.processor_time import ProcessorTime
account = ProcessorTime()
for _ in range(2):
    print(account.wanted(), time.monotonic(), flush=True)
    sys.stdin.readline()
"""

RIVAL = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
print("here", flush=True)
while True:
    pass
"""


def test_a_stopped_process_wants_no_processor() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", REPORTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        wanted_before, before = map(float, child.stdout.readline().split())
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        stopped_at = time.monotonic()
        time.sleep(STOPPED_S)
        stopped_s = time.monotonic() - stopped_at
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()
        wanted, now = map(float, child.stdout.readline().split())
        child.stdin.write("\n")
        child.stdin.close()
    around_s = now - before - stopped_s
    assert wanted - wanted_before <= around_s + 0.1 * stopped_s


def test_who_shares_a_processor_wants_it_while_the_other_has_it() -> None:
    held = os.sched_getaffinity(0)
    one = min(held)
    with subprocess.Popen([sys.executable, "-c", RIVAL, str(one)], stdout=subprocess.PIPE) as rival:
        try:
            assert rival.stdout is not None and rival.stdout.readline()
            os.sched_setaffinity(0, {one})
            account = ProcessorTime()
            began, wanted_before, ran_before = time.monotonic(), account.wanted(), time.thread_time()
            while time.monotonic() - began < 0.5:
                pass
            took_s, wanted_s = time.monotonic() - began, account.wanted() - wanted_before
            ran_s = time.thread_time() - ran_before
            account.close()
        finally:
            os.sched_setaffinity(0, held)
            rival.kill()
    assert ran_s < 0.9 * took_s, "the rival had its turns"
    assert abs(wanted_s - took_s) < 0.1 * took_s


def test_without_an_account_nothing_was_wanted(tmp_path: Path) -> None:
    assert ProcessorTime(str(tmp_path / "none")).wanted() == 0.0
    damaged = tmp_path / "damaged"
    damaged.write_text("no numbers\n")
    account = ProcessorTime(str(damaged))
    assert account.wanted() == 0.0
    account.close()
    account.close()
    assert account.wanted() == 0.0
