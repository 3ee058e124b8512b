"""Dead letters: what was refused, as it came in, with the reason and where it stands in the log.

The value is the raw bytes, the key as received; headers `reason`, `field`, `topic`, `partition`, `offset`. A value over
900 kB (a broker's default limit is 1 MB) is cut to its first 64 KiB with a `sha256` and `bytes` of the whole: the rest
is found at the source offset. Of a batch that nobody can read the value is its bytes, the field `batch`.
"""

from __future__ import annotations

from hashlib import sha256

from features.schema import Refused
from features.store.port import Part
from pipeline.kafka.publisher import Outgoing
from pipeline.kafka.slices import LogRecord

WHOLE_BYTES_MAX = 900_000
HEAD_BYTES = 64 << 10
REASON_CHARS_MAX = 500


def dead_letter(topic: str, part: Part, record: LogRecord, refused: Refused) -> Outgoing:
    """The record for the dead letter `topic`, from a `record` of `part` that was `refused`."""
    headers = [
        ("reason", refused.reason[:REASON_CHARS_MAX].encode("utf-8", "replace")),
        ("field", refused.field.encode("utf-8", "replace")),
        ("topic", part.topic.encode()),
        ("partition", str(part.partition).encode()),
        ("offset", str(record.offset).encode()),
    ]
    value = record.value
    if value is not None and len(value) > WHOLE_BYTES_MAX:
        headers += [("sha256", sha256(value).hexdigest().encode()), ("bytes", str(len(value)).encode())]
        value = value[:HEAD_BYTES]
    key = record.key
    if key is not None and len(key) > HEAD_BYTES:
        headers.append(("key_bytes", str(len(key)).encode()))
        key = key[:HEAD_BYTES]
    return Outgoing(topic, key, value, headers)
