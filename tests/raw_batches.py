"""Record batches by the byte, as clients in other languages may write them, and how to get them into a topic."""

import asyncio

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.structs import TopicPartition

ZSTD = 4
ANSWER_MS = 10_000


class Foreign(str):
    """A header's name that is not UTF-8."""

    def encode(self, *_):
        return b"\xff\xfe"


FOREIGN = Foreign("foreign")


def batch(first, values, *, header=None, codec=0, transactional=False, key=b"k", ts_ms=1_000):
    """A batch of records at offsets `first` on, a millisecond apart, the last with a header of that name."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, transactional, 7 if transactional else -1, 0, 0, 1 << 24)
    for at, value in enumerate(values):
        headers = [(header, b"h")] if header and at == len(values) - 1 else []
        builder.append(at, ts_ms + at, key, value, headers)
    raw = bytearray(builder.build())
    raw[:8] = first.to_bytes(8, "big")
    return bytes(raw)


def send(bootstrap, topic, partition, raw):
    """Has the leader of the partition append a batch; raises where it refuses."""
    asyncio.run(_send(bootstrap, topic, partition, raw))


async def _send(bootstrap, topic, partition, raw):
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        await client.add_topic(topic)
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        answer = await client.send(leader, ProduceRequest(None, -1, ANSWER_MS, [(topic, [(partition, raw)])]))
        [(_, [(_, error, *_)])] = answer.topics
        assert error == 0, f"refused with Kafka's error {error}"
    finally:
        await client.close()
