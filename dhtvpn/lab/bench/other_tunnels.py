"""tinc, n2n, nebula and fastd, each configured as its own manual proposes for two machines."""

import json
import secrets

from dhtvpn.lab.bench.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair
from dhtvpn.lab.bench.tunnels import (
    INNER_MTU,
    OVERLAY_LEFT,
    OVERLAY_PREFIX,
    OVERLAY_RIGHT,
    OWN_ENDS,
    Ends,
    Tunnel,
    set_up_device,
    write,
)

DEVICE = "tunnel0"
SIDES = ("left", "right")
UNDERLAY = (LEFT_ADDRESS, RIGHT_ADDRESS)
OVERLAY = (OVERLAY_LEFT, OVERLAY_RIGHT)

TINC_MTU = 1400
"""Leaves room for a sequence number, CBC padding and digest."""

N2N_MTU = 1360
"""Its default, 1400, is fragmented outside: its header and an Ethernet frame take more than 100 bytes."""


class Tinc(Tunnel):
    """tinc 1.0 in router mode over direct UDP, with its default cipher and digest."""

    name = "tinc"
    title = "tinc"
    programs = ("tincd",)

    def start(self, pair: Pair) -> None:
        for position, machine in enumerate(pair.machines):
            settings = (
                f"Name = {SIDES[position]}\nAddressFamily = ipv4\nInterface = {DEVICE}\nMode = router\n"
            )
            connect = "ConnectTo = left\n" if position == 1 else ""
            tinc_conf = write(machine, "tinc/tinc.conf", settings + connect)
            own = f"Address = {UNDERLAY[position]}\nSubnet = {OVERLAY[position]}/32\n"
            write(machine, f"tinc/hosts/{SIDES[position]}", own)
            machine.run(["tincd", "-c", str(tinc_conf.parent), "-K2048"], stdin="\n\n")
        for position, machine in enumerate(pair.machines):
            peer = pair.machines[1 - position].directory / "tinc" / "hosts" / SIDES[1 - position]
            write(machine, f"tinc/hosts/{SIDES[1 - position]}", peer.read_text())
        for machine in pair.machines:
            directory = machine.directory / "tinc"
            pid_file = machine.directory / "tinc.pid"
            words = ["tincd", "-c", str(directory), "-D", f"--pidfile={pid_file}", "-d1"]
            machine.daemon(words, "tinc")

    def finish(self, pair: Pair) -> Ends:
        for machine, address in zip(pair.machines, OVERLAY, strict=True):
            set_up_device(machine, DEVICE, address, TINC_MTU)
        return OWN_ENDS


class N2n(Tunnel):
    """n2n: a supernode on the left, an edge on each side that find each other through it."""

    name = "n2n"
    title = "n2n"
    programs = ("edge", "supernode")
    port = 7654

    def start(self, pair: Pair) -> None:
        key = secrets.token_hex(16)
        supernode = pair.left.daemon(["supernode", "-l", str(self.port)], "supernode")
        pair.left.wait_for_port("udp", self.port, supernode, 10.0)
        for position, machine in enumerate(pair.machines):
            words = ["edge", "-d", DEVICE, "-a", OVERLAY[position], "-c", "bench", "-k", key]
            words += ["-l", f"{LEFT_ADDRESS}:{self.port}", "-M", str(N2N_MTU), "-u", "0", "-g", "0"]
            machine.daemon(words, "edge")

    def finish(self, pair: Pair) -> Ends:
        for machine, address in zip(pair.machines, OVERLAY, strict=True):
            set_up_device(machine, DEVICE, address, N2N_MTU)
        return OWN_ENDS


class Nebula(Tunnel):
    """nebula with its default cipher (AES-GCM); the left node is the lighthouse."""

    name = "nebula"
    title = "nebula"
    programs = ("nebula", "nebula-cert")
    port = 4242

    def start(self, pair: Pair) -> None:
        authority = pair.left.directory / "nebula"
        write(pair.left, "nebula/README", "certificates of the bench\n")
        signed = ["-ca-crt", str(authority / "ca.crt"), "-ca-key", str(authority / "ca.key")]
        pair.left.run(["nebula-cert", "ca", "-name", "bench", "-out-crt", signed[1], "-out-key", signed[3]])
        for position, machine in enumerate(pair.machines):
            side = SIDES[position]
            certificate, key = authority / f"{side}.crt", authority / f"{side}.key"
            words = ["nebula-cert", "sign", *signed, "-name", side]
            words += ["-ip", f"{OVERLAY[position]}/{OVERLAY_PREFIX}"]
            pair.left.run([*words, "-out-crt", str(certificate), "-out-key", str(key)])
            configuration = {
                "pki": {"ca": signed[1], "cert": str(certificate), "key": str(key)},
                "static_host_map": {OVERLAY_LEFT: [f"{LEFT_ADDRESS}:{self.port}"]},
                "lighthouse": {"am_lighthouse": position == 0, "hosts": [OVERLAY_LEFT] if position else []},
                "listen": {"host": str(UNDERLAY[position]), "port": self.port},
                "tun": {"dev": DEVICE, "mtu": INNER_MTU},
                "firewall": {
                    "outbound": [{"port": "any", "proto": "any", "host": "any"}],
                    "inbound": [{"port": "any", "proto": "any", "host": "any"}],
                },
            }
            # Every JSON document is a YAML document.
            path = write(machine, "nebula.yml", json.dumps(configuration))
            machine.daemon(["nebula", "-config", str(path)], "nebula")


class Fastd(Tunnel):
    """fastd with salsa2012+umac, the method that its manual recommends where there is no AES hardware to
    count on."""

    name = "fastd"
    title = "fastd"
    programs = ("fastd",)
    port = 10000

    def start(self, pair: Pair) -> None:
        keys = []
        for machine in pair.machines:
            words = machine.run(["fastd", "--generate-key"]).stdout.split()
            keys.append((words[words.index("Secret:") + 1], words[words.index("Public:") + 1]))
        for position, machine in enumerate(pair.machines):
            # Only the right side calls, and only when the left one listens: a first handshake that is
            # lost is tried again a quarter of a minute later.
            remote = f"remote {LEFT_ADDRESS}:{self.port}; " if position == 1 else ""
            path = write(
                machine,
                "fastd.conf",
                f'mode tun;\ninterface "{DEVICE}";\nmtu {INNER_MTU};\nmethod "salsa2012+umac";\n'
                f'bind {UNDERLAY[position]}:{self.port};\nsecret "{keys[position][0]}";\n'
                f'peer "{SIDES[1 - position]}" {{ key "{keys[1 - position][1]}"; {remote}}}\n',
            )
            child = machine.daemon(["fastd", "--config", str(path)], "fastd")
            machine.wait_for_port("udp", self.port, child, 10.0)

    def finish(self, pair: Pair) -> Ends:
        for machine, address in zip(pair.machines, OVERLAY, strict=True):
            set_up_device(machine, DEVICE, address, INNER_MTU)
        return OWN_ENDS
