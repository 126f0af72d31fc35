"""The nftables rules that make a router's NAT behave as RFC 4787's words say. Pure text.

Linux translates with connection tracking, so each behaviour is put together from its parts:

- Allocation. ``masquerade`` keeps the internal port where it can; ``fully-random`` draws one; a counter
  (``numgen inc``) gives one after the other.
- Mapping. Connection tracking knows flows, and each flow may get a port of its own: address-and-port-
  dependent mapping. For the other two a map remembers which external port an internal endpoint has got,
  towards everybody or towards one address, and later flows take it from there. Where ports are preserved,
  every flow gets the same one anyhow.
- Filtering. Connection tracking alone lets in only replies: address-and-port-dependent filtering.
  The looser kinds remember outgoing packets in sets: who is behind an external port, and to which addresses
  it has spoken; ``dnat`` lets in what the sets allow.
- Lifetime. What is remembered lives as long as the flows themselves, and every outgoing packet renews it.
- Hairpinning. A packet from the LAN to the router's own address is translated twice, at its destination
  from what is remembered, at its source as if it went out. It is not filtered. Without hairpinning it is
  lost.
- An unsolicited packet is dropped in the input chain. If the router took it for itself, its
  connection tracking entry would occupy the port, and the next packet from inside would get another
  one: the mapping would no longer be endpoint-independent. Home routers drop it too.

Not to be had: a dependent mapping with endpoint-independent filtering. A flow keeps the port by which it
began. Where the inside has sent to somebody from one port, and he then sends to another port of the same
internal endpoint, connection tracking sees two entries for one flow and drops his packet.
"""

from ipaddress import IPv4Interface

from dhtvpn.errors import UsageError
from dhtvpn.lab.addressing import LAN_BRIDGE, ROUTER_UPLINK
from dhtvpn.lab.nat_behaviour import Allocation, Filtering, Mapping, Nat

MAX_TRACKED = 4096
"""Entries in a router's sets, more than any laboratory fills."""

FIRST_CONTIGUOUS_PORT = 30_000
CONTIGUOUS_PORTS = 2_000
"""Where contiguous allocation begins, and after how many ports it begins again."""

_WAN_OUT = f'oifname "{ROUTER_UPLINK}"'
_INSIDE = "ct original ip saddr . ct original proto-src"
_INSIDE_OF_REPLY = "ct reply ip saddr . ct reply proto-src"


def router_rules(nat: Nat, wan: IPv4Interface, lan: IPv4Interface) -> str:
    """A complete ruleset for a router whose interfaces are ``wan`` and ``lan``, with its addresses on them.

    Raises UsageError for what connection tracking cannot do.
    """
    if nat.dependent and nat.filtering is Filtering.ENDPOINT_INDEPENDENT:
        raise UsageError(
            "the laboratory's routers cannot combine dependent mapping with endpoint-independent filtering"
        )
    sections = [
        *_memory(nat, wan),
        _chain("postrouting", "type nat hook postrouting priority srcnat", _translations(nat, wan, lan)),
        *_let_in(nat, wan),
    ]
    return f"table ip nat {{\n{''.join(sections)}}}\n{_firewall(nat, wan)}"


def _remembers_ports(nat: Nat) -> bool:
    """Whether the rules must see to it that flows share a port."""
    return nat.mapping is Mapping.ADDRESS_DEPENDENT or (
        nat.mapping is Mapping.ENDPOINT_INDEPENDENT and nat.allocation is not Allocation.PRESERVING
    )


def _remembers_openings(nat: Nat) -> bool:
    """Whether packets may come in that are no replies."""
    return nat.hairpinning or nat.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT


def _mapping_key(nat: Nat, inside: str, outside: str) -> str:
    return inside if nat.mapping is Mapping.ENDPOINT_INDEPENDENT else f"{inside} . {outside}"


def _translations(nat: Nat, wan: IPv4Interface, lan: IPv4Interface) -> list[str]:
    """Source translation of a flow's first packet. What has been turned round comes from the LAN and has
    had its destination translated."""
    turned = f'oifname "{LAN_BRIDGE}" ip saddr {lan.network} ct status dnat'
    ways = [(_WAN_OUT, "masquerade")]
    if nat.hairpinning:
        ways.append((turned, f"snat ip to {wan.ip}"))
    rules = []
    for way, verb in ways:
        udp = f"{way} meta l4proto udp"
        to = "to " if verb == "masquerade" else ""
        if _remembers_ports(nat):
            key = _mapping_key(nat, _INSIDE, "ct original ip daddr")
            rules.append(f"{udp} {key} @ports {verb} {to}:{key} map @ports")
        match nat.allocation:
            case Allocation.PRESERVING:
                pass
            case Allocation.RANDOM:
                rules.append(f"{udp} {verb} fully-random")
            case Allocation.CONTIGUOUS:
                rules.append(f"{udp} {verb} {to}:{_counter()}")
        rules.append(f"{way} {verb}")
    return rules


def _counter() -> str:
    """A port after the last one. Through a map, because a bare number would get its octets swapped."""
    ports = ", ".join(f"{n} : {FIRST_CONTIGUOUS_PORT + n}" for n in range(CONTIGUOUS_PORTS))
    return f"numgen inc mod {CONTIGUOUS_PORTS} map {{ {ports} }}"


def _memory(nat: Nat, wan: IPv4Interface) -> list[str]:
    """What outgoing packets leave behind once their source is translated, for as long as a mapping lives."""
    bounds = f"flags dynamic,timeout; timeout {nat.expiry_s}s; size {MAX_TRACKED};"
    remembered: list[str] = []
    original: list[str] = []
    reply: list[str] = []
    if _remembers_ports(nat):
        key_type = _mapping_key(nat, "ipv4_addr . inet_service", "ipv4_addr")
        remembered.append(f"\tmap ports {{ type {key_type} : inet_service; {bounds} }}\n")
        for updates, inside, outside in (
            (original, _INSIDE, "ct original ip daddr"),
            (reply, _INSIDE_OF_REPLY, "ct reply ip daddr"),
        ):
            updates.append(f"update @ports {{ {_mapping_key(nat, inside, outside)} : udp sport }}")
    if _remembers_openings(nat):
        remembered.append(f"\tmap open_ports {{ type inet_service : ipv4_addr . inet_service; {bounds} }}\n")
        original.append(f"update @open_ports {{ udp sport : {_INSIDE} }}")
        reply.append(f"update @open_ports {{ udp sport : {_INSIDE_OF_REPLY} }}")
    if nat.filtering is Filtering.ADDRESS_DEPENDENT:
        remembered.append(f"\tset spoken_to {{ type ipv4_addr . inet_service; {bounds} }}\n")
        for updates in (original, reply):
            updates.append("update @spoken_to { ip daddr . udp sport }")
    if not remembered:
        return []
    ways = [_WAN_OUT]
    if nat.hairpinning:
        ways.append(f'oifname "{LAN_BRIDGE}" ip saddr {wan.ip}')
    rules = [
        f"{way} meta l4proto udp ct direction {direction} {update}"
        for way in ways
        for direction, updates in (("original", original), ("reply", reply))
        for update in updates
    ]
    return [*remembered, _chain("translated", "type filter hook postrouting priority srcnat + 10", rules)]


def _let_in(nat: Nat, wan: IPv4Interface) -> list[str]:
    """Destination translation of what is no reply."""
    translate = "dnat ip to udp dport map @open_ports"
    from_outside = f'iifname "{ROUTER_UPLINK}" meta l4proto udp'
    rules = []
    match nat.filtering:
        case Filtering.ENDPOINT_INDEPENDENT:
            rules.append(f"{from_outside} {translate}")
        case Filtering.ADDRESS_DEPENDENT:
            rules.append(f"{from_outside} ip saddr . udp dport @spoken_to {translate}")
        case Filtering.ADDRESS_AND_PORT_DEPENDENT:
            pass
    if nat.hairpinning:
        rules.append(f'iifname "{LAN_BRIDGE}" ip daddr {wan.ip} meta l4proto udp {translate}')
    return [_chain("prerouting", "type nat hook prerouting priority dstnat", rules)] if rules else []


def _firewall(nat: Nat, wan_address: IPv4Interface) -> str:
    """Input: nothing from outside reaches the router. Forward: replies, translated packets, and for
    IPv6, which is not translated, new UDP only under endpoint-independent filtering."""
    wan = f'iifname "{ROUTER_UPLINK}"'
    input_rules = [
        f"{wan} meta l4proto ipv6-icmp accept",
        f"{wan} icmp type echo-request accept",
        f"{wan} ct state established,related accept",
        f"{wan} drop",
        f'iifname "{LAN_BRIDGE}" ip daddr {wan_address.ip} meta l4proto udp drop',
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
