"""Records: how a node says, to members only, where it can be reached; and when and under what topic.

Pure: no socket, no file, no clock, no entropy. Wall time comes in as ``unix_time`` (seconds since
1970), randomness as ``random_bytes``. The wire format is docs/protocol/record.md.
"""
