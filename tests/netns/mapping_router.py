"""A laboratory router with the real miniupnpd on it.

miniupnpd maps only where the router's address looks public, and the laboratory's do not: so the router gets
one more address, which is routed to it inside the laboratory and never leaves it.
"""

import re
import subprocess
import time

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab import namespaces
from dhtvpn.lab.addressing import LAN_BRIDGE, ROUTER_UPLINK
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import PUBLIC_SEGMENT

PUBLIC_ADDRESS = "11.0.0.9"
START_TIMEOUT_S = 10.0

_RULES = f"""
flush ruleset
table inet filter {{
    chain miniupnpd {{ }}
    chain prerouting_miniupnpd {{ }}
    chain postrouting_miniupnpd {{ }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        jump prerouting_miniupnpd
    }}
    chain input {{
        type filter hook input priority filter;
        iifname "{ROUTER_UPLINK}" ct state established,related accept
        iifname "{ROUTER_UPLINK}" meta l4proto ipv6-icmp accept
        iifname "{ROUTER_UPLINK}" drop
    }}
    chain forward {{
        type filter hook forward priority filter;
        jump miniupnpd
        iifname "{ROUTER_UPLINK}" ct state established,related accept
        iifname "{ROUTER_UPLINK}" ct status dnat accept
        iifname "{ROUTER_UPLINK}" meta l4proto ipv6-icmp accept
        iifname "{ROUTER_UPLINK}" oifname "{LAN_BRIDGE}" drop
    }}
}}
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "{ROUTER_UPLINK}" snat to {PUBLIC_ADDRESS} fully-random
    }}
}}
"""
"""Address-and-port-dependent mapping and filtering; what miniupnpd maps is let in, and nothing else."""


class MappingRouter:
    """The router ``name`` of ``network``, whose NAT is replaced by one with the public address."""

    def __init__(self, network: Network, name: str) -> None:
        namespaces.check_requirements(("ip", "nft", "sysctl", "miniupnpd"))
        self.machine: Machine = network.node(name)
        self._daemon: subprocess.Popen[str] | None = None
        own = self.machine.ipv4
        namespaces.ip_batch(self.machine.namespace, [f"address add {PUBLIC_ADDRESS}/32 dev {ROUTER_UPLINK}"])
        namespaces.ip_batch(network.node(PUBLIC_SEGMENT).namespace, [f"route add {PUBLIC_ADDRESS} via {own}"])
        namespaces.load_rules(self.machine.namespace, _RULES)

    def start(self, **options: str) -> None:
        """Start miniupnpd, with ``options`` beside or instead of ours in its configuration file."""
        settings = {
            "ext_ifname": ROUTER_UPLINK,
            "ext_ip": PUBLIC_ADDRESS,
            "listening_ip": LAN_BRIDGE,
            "enable_natpmp": "yes",
            "enable_upnp": "yes",
            "secure_mode": "yes",
            "system_uptime": "no",
            "uuid": "00000000-0000-4000-8000-000000000001",
        } | options
        lines = [f"{name}={value}" for name, value in settings.items() if value]
        lines += ["allow 1024-65535 0.0.0.0/0 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535"]
        log = self.machine.log_file("miniupnpd")
        configuration = log.with_suffix(".conf")
        configuration.write_text("\n".join(lines) + "\n")
        self._daemon = self.machine.daemon(
            ["miniupnpd", "-d", "-f", str(configuration), "-P", str(log.with_suffix(".pid"))], "miniupnpd"
        )
        self._started = time.monotonic()
        port = 5351 if settings["enable_natpmp"] == "yes" else 1900
        self.machine.wait_for_port("udp", port, self._daemon, START_TIMEOUT_S)

    def reboot(self, **options: str) -> None:
        """End miniupnpd without a word, forget every mapping, and start it again."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()
        namespaces.load_rules(self.machine.namespace, _RULES)
        assert self.mappings() == {}
        self.start(**options)

    @property
    def uptime_s(self) -> float:
        """Seconds since miniupnpd was started."""
        return time.monotonic() - self._started

    def mappings(self) -> dict[int, Endpoint]:
        """External UDP ports, and where they lead."""
        rules = self.machine.run(["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]).stdout
        # a protocol's number, which this nft prints as raw payload: 0x11 is UDP
        found = re.findall(r"0x11 th dport (\d+) dnat ip to ([\d.]+):(\d+)", rules)
        return {int(port): Endpoint(host, int(inside)) for port, host, inside in found}
