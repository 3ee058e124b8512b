"""Who leads which partition, as aiokafka's metadata tell; a broker that is away holds up what it leads, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiokafka
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError
from faust.types import TP

from pipeline.logs import get_logger

log = get_logger(__name__)

NOBODY = -1  # leads a partition whose brokers are all away, in the metadata of every client


def by_leader(cluster: ClusterMetadata, tps: Iterable[TP]) -> dict[int, list[TP]]:
    """The partitions of each broker; what nobody leads, or the metadata do not know, is left out."""
    led: dict[int, list[TP]] = defaultdict(list)
    for tp in tps:
        if (leader := cluster.leader_for_partition(tp)) not in (None, NOBODY):
            led[leader].append(tp)
    return dict(led)


async def begins(
    consumer: aiokafka.AIOKafkaConsumer, together: Iterable[list[TP]], *, answer_s: float
) -> dict[TP, int]:
    """The logs' first offsets, as far as their leaders answer within `answer_s`; `together`: what one broker leads. One
    that does not answer is waited for by its own partitions.
    """
    asked = {asyncio.ensure_future(consumer.beginning_offsets(tps)): tps for tps in together}
    if not asked:
        return {}
    _, late = await asyncio.wait(asked, timeout=answer_s)
    for each in late:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    offsets: dict[TP, int] = {}
    for each, tps in asked.items():
        error = TimeoutError() if each.cancelled() else each.exception()
        if error is None:
            offsets.update((tp, each.result()[tp]) for tp in tps)
        elif isinstance(error, (KafkaError, OSError)):  # a TimeoutError is an OSError
            names = [f"{tp.topic}-{tp.partition}" for tp in tps]
            log.warning("a broker does not say where its logs begin, asking again", partitions=names, cause=repr(error))
        else:
            raise error
    return offsets


def paced(ask: Callable[..., Awaitable[Any]], *, a_second: int) -> Callable[..., Awaitable[Any]]:
    """`ask`, at most so many times a second. While a partition of ours has no leader, aiokafka asks for the metadata again
    as soon as it has them.
    """
    asked_s: deque[float] = deque(maxlen=a_second)

    async def in_turn(*args: Any) -> Any:
        if len(asked_s) == a_second:
            await asyncio.sleep(max(0.0, asked_s[0] + 1 - time.monotonic()))
        asked_s.append(time.monotonic())
        return await ask(*args)

    return in_turn
