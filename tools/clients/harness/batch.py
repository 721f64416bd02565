"""Record batches v2 by hand: right ones, and ones that lie."""

import struct

CRC32C_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected.
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (CRC32C_POLYNOMIAL if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(raw):
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def varint(n):
    n = (n << 1) ^ (n >> 63)
    out = bytearray()
    while n > 0x7F:
        out.append((n & 0x7F) | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def record(delta, value, key=None):
    key_bytes = varint(-1) if key is None else varint(len(key)) + key
    value_bytes = varint(-1) if value is None else varint(len(value)) + value
    body = b"\x00" + varint(0) + varint(delta) + key_bytes + value_bytes + varint(0)
    return varint(len(body)) + body


def batch(values, *, attributes=0, producer=-1, epoch=-1, sequence=-1, timestamp=1000, **lies):
    """One batch of `values`, plain. `lies` replace header fields after the fact, and the CRC is right for the lie unless `crc` is one of them.

    Fields: base_offset, length, leader_epoch, magic, crc, last_offset_delta, count, max_timestamp, payload.
    """
    payload = lies.get("payload", b"".join(record(n, value) for n, value in enumerate(values)))
    body = struct.pack(
        ">hiqqqhii",
        attributes,
        lies.get("last_offset_delta", len(values) - 1),
        timestamp,
        lies.get("max_timestamp", timestamp),
        producer,
        epoch,
        sequence,
        lies.get("count", len(values)),
    )
    body += payload
    crc = lies.get("crc", crc32c(body))
    length = lies.get("length", 4 + 1 + 4 + len(body))
    return struct.pack(">qiibI", lies.get("base_offset", 0), length, lies.get("leader_epoch", -1), lies.get("magic", 2), crc) + body
