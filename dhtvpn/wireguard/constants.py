"""The numbers of the protocol. Sections are those of the WireGuard paper; what is ours says so and why."""

from typing import Final

# Noise_IKpsk2 (sections 5.4 and 5.4.1)
CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

# Sizes in bytes (section 5.4)
KEY_SIZE: Final = 32
HASH_SIZE: Final = 32
TAG_SIZE: Final = 16
MAC_SIZE: Final = 16
COOKIE_SIZE: Final = 16
COOKIE_NONCE_SIZE: Final = 24
TIMESTAMP_SIZE: Final = 12
PADDING_UNIT: Final = 16  # section 5.4.6: the plaintext of a data message is padded to a multiple of it

# Message types (section 5.4)
TYPE_INITIATION: Final = 1
TYPE_RESPONSE: Final = 2
TYPE_COOKIE_REPLY: Final = 3
TYPE_DATA: Final = 4
TYPE_DATA_AES: Final = 5  # ours: docs/protocol/tunnel.md
BLOCK: Final = 2  # ours: the type of a data message and this is that of a block sealed with the same cipher
TYPE_BLOCK: Final = TYPE_DATA + BLOCK
TYPE_BLOCK_AES: Final = TYPE_DATA_AES + BLOCK

# Limits of a keypair (section 6.1)
REKEY_AFTER_MESSAGES: Final = 1 << 60
REJECT_AFTER_MESSAGES: Final = (1 << 64) - (1 << 13) - 1
REKEY_AFTER_TIME: Final = 120.0  # seconds
REJECT_AFTER_TIME: Final = 180.0  # seconds
REKEY_ATTEMPT_TIME: Final = 90.0  # seconds
REKEY_TIMEOUT: Final = 5.0  # seconds
KEEPALIVE_TIMEOUT: Final = 10.0  # seconds

ERASE_AFTER_TIME: Final = (
    3 * REJECT_AFTER_TIME
)  # section 6.3: everything is erased so long after the last session
REKEY_ON_RECEIVE_AFTER_TIME: Final = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT  # section 6.2
NEW_HANDSHAKE_AFTER_TIME: Final = (
    KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
)  # section 6.5: sent, but nothing came back
REKEY_TIMEOUT_JITTER: Final = (
    1 / 3
)  # seconds at most; section 6.1 asks for jitter, wireguard-linux uses this much

# Cookies (section 5.4.7)
COOKIE_SECRET_LIFETIME: Final = 120.0  # seconds: the responder's secret changes every two minutes
COOKIE_LIFETIME: Final = 120.0  # seconds that an initiator uses a cookie

# Replay window (RFC 6479; section 5.4.6 asks for "a sliding window")
REPLAY_WINDOW_BITS: Final = 8192

# Ours
MAX_PEERS: Final = 4096  # peers of one device: four times the members that one node connects to
INITIATIONS_PER_PEER_S: Final = (
    50  # handshakes of one peer answered per second; the same as stock implementations
)
UNDER_LOAD_HANDSHAKES_PER_S: Final = 200  # with a valid mac1; about 5% of what one core can answer in Python
UNDER_LOAD_LINGER: Final = 1.0  # seconds that a device stays under load after the last such burst
SOURCE_RATE_PER_S: Final = 20  # handshake messages per source address (IPv6: /64), enforced under load
SOURCE_RATE_BURST: Final = 5
MAX_RATED_SOURCES: Final = 4096  # addresses remembered for that
UNKNOWN_PEERS_PER_S: Final = 10  # UnknownPeer events: each may cost the daemon a lookup
