"""One joined network: membership, directory, paths and tunnels, tied together.

``node.Node`` owns the parts; each part has one file:

    claim          the IPv4 address that this node holds, and who moves when two hold one
    surroundings   what the outside sees of this node: candidates, public endpoints, kind of NAT
    announcer      publishes this node's record
    finder         watches the topics and keeps the roster
    tunnels        handshakes here, data messages in the engine
    connector      brings up a path to each member
    local_end      TUN device, overlay addresses and the engine process of this machine
    liveness       pings along each path and notices when it is gone
    stock          plain WireGuard peers attached by hand
    memory         what is remembered on disk, so that a restart needs no directory
    status         the document that `dhtvpn status --json` prints
    reporter       what happens, as events; path_history remembers the last changes of each path
    explanation    the document behind `dhtvpn why`; mesh_graph the one behind `dhtvpn graph`
"""
