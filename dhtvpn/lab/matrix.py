"""Every two kinds of access to the Internet, each pair in a laboratory of its own: do the members connect, by
which path, how soon?

Nothing survives from pair to pair: other namespaces, other network, other nodes.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from dhtvpn.errors import DhtVpnError, UsageError
from dhtvpn.lab import namespaces
from dhtvpn.lab.experiment import Experiment, Limits, PairResult, Progress, explain
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Nat,
)
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import ExpectedPath, Host, Role, Router, Topology

FIRST_REPLY_S = 12.0
"""Who has not answered then is not connected; that is three times what is asked for."""

UPGRADE_S = 3.0
"""How long a relayed pair that could be direct has to become it."""

DIRECT = "direct"

_BEHIND: dict[str, tuple[Nat, ...]] = {
    "public": (),
    "open": (OPEN_FILTERING,),
    "address": (ADDRESS_RESTRICTED,),
    "port": (PORT_RESTRICTED,),
    "symmetric": (SYMMETRIC,),
    "carrier": (PORT_RESTRICTED, CARRIER),
}
"""The NATs between a member and the Internet, the nearest first."""

IPV6 = "ipv6"
"""A member without IPv4; the bootstrap node has both."""

KINDS = (*_BEHIND, IPV6)

SAME_LAN = "same-lan"
HAIRPIN, NO_HAIRPIN = "hairpin", "no-hairpin"
_COMMON: dict[str, Nat] = {
    SAME_LAN: PORT_RESTRICTED,
    HAIRPIN: CARRIER,
    NO_HAIRPIN: replace(CARRIER, hairpinning=False),
}
"""Two members behind one NAT: on its own LAN, or in a home each, where it has to turn their packets round."""


@dataclass(frozen=True)
class Pair:
    """Two kinds of access; ``common``: which NAT both are behind, where they are behind one."""

    one: str
    other: str
    common: str | None = None

    @property
    def name(self) -> str:
        return self.common or f"{self.one}-{self.other}"


PAIRS = (
    *(Pair(one, other) for one, other in combinations_with_replacement(KINDS, 2)),
    *(Pair("port", "port", common) for common in _COMMON),
)


def chosen(names: Sequence[str]) -> list[Pair]:
    """The pairs of these names; the name of a kind stands for every pair that it is in; none: all.

    Raises UsageError for a name that is neither.
    """
    for name in names:
        if not any(_is_called(pair, name) for pair in PAIRS):
            raise UsageError(
                f"there is no pair {name!r}: name a kind ({', '.join((*KINDS, *_COMMON))}) or two, as "
                "port-symmetric"
            )
    return [pair for pair in PAIRS if not names or any(_is_called(pair, name) for name in names)]


def _is_called(pair: Pair, name: str) -> bool:
    if pair.common is not None:
        return name == pair.common
    return name in (pair.one, pair.other, pair.name, f"{pair.other}-{pair.one}")


def topology_of(pair: Pair, lines: Conditions | None, seed: int, *, relay: bool) -> Topology:
    """Members ``one`` and ``other``, and a bootstrap node that has IPv4 and IPv6."""
    boot = Host("boot", Role.BOOTSTRAP, ipv6=True, relay=relay)
    if pair.common is not None:
        hosts, routers = _behind_one(pair.common)
    else:
        sides = [_side(name, kind) for name, kind in (("one", pair.one), ("other", pair.other))]
        hosts = tuple(host for host, _ in sides)
        routers = tuple(router for _, above in sides for router in above)
    return Topology(f"matrix-{pair.name}", "a pair of the matrix", (boot, *hosts), routers, lines, seed)


def _behind_one(common: str) -> tuple[tuple[Host, ...], tuple[Router, ...]]:
    shared = Router("shared", _COMMON[common])
    if common == SAME_LAN:
        return (Host("one", behind=shared.name), Host("other", behind=shared.name)), (shared,)
    homes = [Router(f"{name}-home", PORT_RESTRICTED, shared.name) for name in ("one", "other")]
    return (Host("one", behind="one-home"), Host("other", behind="other-home")), (shared, *homes)


def _side(name: str, kind: str) -> tuple[Host, list[Router]]:
    if kind == IPV6:
        return Host(name, ipv4=False, ipv6=True), []
    routers: list[Router] = []
    above = None
    nats = _BEHIND[kind]
    for level in range(len(nats), 0, -1):
        routers.append(Router(f"{name}-router{level}", nats[level - 1], above))
        above = routers[-1].name
    return Host(name, behind=above), routers


@dataclass(frozen=True)
class Outcome:
    """One pair in one run. ``path`` is what became of the first path in at most UPGRADE_S; ``upgrade_s``:
    how long that took after the first was seen; None where it stayed."""

    pair: Pair
    first: PairResult
    path: str | None
    upgrade_s: float | None = None

    @property
    def connected(self) -> bool:
        """Both overlay addresses answered."""
        return self.first.connected

    @property
    def could_be_direct(self) -> bool:
        """By the behaviours of what lies between, without foreseeing a port."""
        return self.first.expected is ExpectedPath.DIRECT

    @property
    def complaint(self) -> str | None:
        """What is wrong with it, in words; None: nothing."""
        if not self.connected:
            return "no connection"
        if self.could_be_direct and self.path != DIRECT:
            return f"{self.path or 'of no known path'}, and could be direct"
        return None


def run_pair(pair: Pair, lines: Conditions | None, seed: int, *, relay: bool) -> Outcome:
    """Build it, join both, look, take it down. Raises DhtVpnError when a node does not start."""
    limits = Limits(FIRST_REPLY_S, FIRST_REPLY_S, throughput_s=0)
    with Network(topology_of(pair, lines, seed, relay=relay)) as network:
        experiment = Experiment(network, limits, lambda _: None)
        try:
            (result,) = experiment.run()
            return _settled(pair, experiment, result)
        except DhtVpnError as error:
            raise DhtVpnError(f"{pair.name}: {explain(network, error)}") from error


def _settled(pair: Pair, experiment: Experiment, result: PairResult) -> Outcome:
    outcome = Outcome(pair, result, result.path)
    if not result.connected or not outcome.could_be_direct or result.path == DIRECT:
        return outcome
    one, other = experiment.network.topology.members
    seen = time.monotonic()
    while outcome.path != DIRECT and time.monotonic() - seen < UPGRADE_S:
        time.sleep(0.1)
        path = experiment.path(one, other)
        outcome = replace(outcome, path=path, upgrade_s=time.monotonic() - seen)
    return outcome if outcome.path == DIRECT else replace(outcome, upgrade_s=None)


def run(
    pairs: Sequence[Pair], lines: Conditions | None, *, runs: int, seed: int, progress: Progress
) -> list[Outcome]:
    """Every pair ``runs`` times, all of them once before any a second time. Needs root."""
    namespaces.check_requirements(("ip", "nft", "sysctl", "ping"))
    relay = bootstrap_nodes_relay()
    if not relay:
        progress("bootstrap nodes of this version do not relay")
    outcomes = []
    for number in range(runs):
        for position, pair in enumerate(pairs, start=1):
            outcome = run_pair(pair, lines, seed + number, relay=relay)
            outcomes.append(outcome)
            progress(f"{position}/{len(pairs)} {pair.name}: {words(outcome)}")
    return outcomes


def words(outcome: Outcome) -> str:
    """One outcome in a line."""
    seconds = outcome.first.first_reply_s
    if seconds is None or not outcome.connected:
        return "no connection"
    upgraded = f", {outcome.path} {outcome.upgrade_s:.1f} s later" if outcome.upgrade_s is not None else ""
    complaint = f" ({outcome.complaint})" if outcome.complaint else ""
    return f"{outcome.first.path} after {seconds:.2f} s{upgraded}{complaint}"


def bootstrap_nodes_relay() -> bool:
    """Whether this version's ``dhtvpn bootstrap`` has ``--relay``."""
    usage = subprocess.run(
        [sys.executable, "-m", "dhtvpn", "bootstrap", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=namespaces.COMMAND_TIMEOUT_S,
    )
    return "--relay" in usage.stdout
