"""The nftables rules that make a router's NAT behave as RFC 4787's words say. Pure text.

Linux translates with connection tracking, so each behaviour is put together from its parts:

- Mapping. ``masquerade`` keeps the internal port where it can, towards every destination: that is
  endpoint-independent mapping. ``masquerade fully-random`` draws a port for each destination:
  address-and-port-dependent mapping.
- Filtering. Connection tracking alone lets in only replies: address-and-port-dependent filtering.
  The looser kinds remember outgoing packets in sets: which internal port is open at which host, and
  to which addresses it has spoken; ``dnat`` lets in what the sets allow.
- An unsolicited packet is dropped in the input chain. If the router took it for itself, its
  connection tracking entry would occupy the port, and the next packet from inside would get another
  one: the mapping would no longer be endpoint-independent. Home routers drop it too.

No hairpinning (RFC 4787, section 6): a packet from the LAN to the router's own public address is lost.
"""

from dhtvpn.lab.addressing import LAN_BRIDGE, ROUTER_UPLINK
from dhtvpn.lab.topology import Filtering, Mapping, Nat

MAX_TRACKED = 4096
"""Entries in a router's sets, more than any laboratory fills."""


def router_rules(nat: Nat) -> str:
    """A complete ruleset for a router whose interfaces are ``wan`` and ``lan``."""
    translate = "masquerade"
    if nat.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT:
        translate = "masquerade fully-random"
    sections = [
        *_memory(nat),
        _chain(
            "postrouting",
            "type nat hook postrouting priority srcnat",
            [f'oifname "{ROUTER_UPLINK}" {translate}'],
        ),
        *_let_in(nat),
    ]
    return f"table ip nat {{\n{''.join(sections)}}}\n{_firewall(nat)}"


def _memory(nat: Nat) -> list[str]:
    """What the looser filterings remember of outgoing packets, for as long as a mapping lives."""
    if nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT:
        return []
    bounds = f"flags dynamic,timeout; timeout {nat.expiry_s}s; size {MAX_TRACKED};"
    remembered = [f"\tmap open_ports {{ type inet_service : ipv4_addr; {bounds} }}\n"]
    outgoing = f'oifname "{ROUTER_UPLINK}" meta l4proto udp'
    rules = [f"{outgoing} update @open_ports {{ udp sport : ip saddr }}"]
    if nat.filtering is Filtering.ADDRESS_DEPENDENT:
        remembered.append(f"\tset spoken_to {{ type ipv4_addr . inet_service; {bounds} }}\n")
        rules.append(f"{outgoing} update @spoken_to {{ ip daddr . udp sport }}")
    return [*remembered, _chain("outgoing", "type filter hook forward priority filter", rules)]


def _let_in(nat: Nat) -> list[str]:
    if nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT:
        return []
    condition = f'iifname "{ROUTER_UPLINK}" meta l4proto udp'
    if nat.filtering is Filtering.ADDRESS_DEPENDENT:
        condition += " ip saddr . udp dport @spoken_to"
    return [
        _chain(
            "prerouting",
            "type nat hook prerouting priority dstnat",
            [f"{condition} dnat to udp dport map @open_ports"],
        )
    ]


def _firewall(nat: Nat) -> str:
    """Input: nothing from outside reaches the router. Forward: replies, translated packets, and for
    IPv6, which is not translated, new UDP only under endpoint-independent filtering."""
    wan = f'iifname "{ROUTER_UPLINK}"'
    input_rules = [
        f"{wan} meta l4proto ipv6-icmp accept",
        f"{wan} icmp type echo-request accept",
        f"{wan} ct state established,related accept",
        f"{wan} drop",
    ]
    forward_rules = [
        f"{wan} ct state established,related accept",
        f"{wan} ct status dnat accept",
        f"{wan} meta l4proto ipv6-icmp accept",
    ]
    if nat.filtering is Filtering.ENDPOINT_INDEPENDENT:
        forward_rules.append(f"{wan} meta nfproto ipv6 meta l4proto udp accept")
    forward_rules.append(f'{wan} oifname "{LAN_BRIDGE}" drop')
    return (
        "table inet firewall {\n"
        + _chain("input", "type filter hook input priority filter", input_rules)
        + _chain("forward", "type filter hook forward priority filter", forward_rules)
        + "}\n"
    )


def _chain(name: str, hook: str, rules: list[str]) -> str:
    body = "".join(f"\t\t{rule}\n" for rule in rules)
    return f"\tchain {name} {{\n\t\t{hook}; policy accept;\n{body}\t}}\n"
