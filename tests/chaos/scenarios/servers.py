"""What happens to the servers: killed, cut, full, frozen."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import redis

from tests.chaos.faults import Fault, fault
from tests.chaos.scenarios import Scenario, points, scenario
from tests.chaos.stand import Setup, Stand

CUT_BYTES_MAX = 4_000_000


@fault
def kill_broker(stand: Stand) -> Callable[[], None]:
    """Kill -9, then a start on the same data."""
    stand.broker.kill()
    return stand.broker.restart


@fault
def kill_redis(stand: Stand, *, node: int = 0) -> Callable[[], None]:
    """Kill -9, then a start on the same append-only file."""
    node %= len(stand.redis.urls)
    stand.redis.kill(node)
    return lambda: stand.redis.restart(node)


@fault
def cut_aof(stand: Stand, *, draw: int, bytes_max: int = CUT_BYTES_MAX, node: int = 0) -> Callable[[], None]:
    """Kill -9 and the file's tail gone, as after a power loss; then a start on what is left."""
    node %= len(stand.redis.urls)
    stand.redis.kill(node)
    stand.redis.cut(Random(draw), bytes_max=bytes_max, node=node)
    return lambda: stand.redis.restart(node)


@fault
def fill_redis(stand: Stand, *, room_bytes: int, node: int = 0) -> Callable[[], None]:
    """The node's maxmemory is reached after `room_bytes` more; then it is raised."""
    url = stand.redis.urls[node % len(stand.redis.urls)]

    def limit(maxmemory: int) -> None:
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", str(maxmemory))

    with redis.Redis.from_url(url) as client:
        used = int(client.info("memory")["used_memory"])
    limit(used + room_bytes)
    return lambda: limit(0)


def _downs(kind: str, *, one_in: int, lasts_ms: tuple[int, int]) -> Callable[[Random, int], list[Fault]]:
    """The fault again and again; of Redis one node at random, where there are several."""

    def args(random: Random) -> dict[str, int]:
        node, draw = random.randrange(1 << 30), random.randrange(1 << 30)
        return {"kill_broker": {}, "kill_redis": {"node": node}, "cut_aof": {"node": node, "draw": draw}}[kind]

    def plan(random: Random, events: int) -> list[Fault]:
        return [
            Fault(kind, after, args(random), lasts_ms=random.randrange(*lasts_ms))
            for after in points(random, events, max(2, events // one_in))
        ]

    return plan


scenario(
    Scenario(
        "kill_broker",
        "kill -9 of the broker, and a start on the same data",
        _downs("kill_broker", one_in=20_000, lasts_ms=(0, 4_000)),
        Setup(brokers=("apache",)),
    )
)
scenario(
    Scenario("kill_redis", "kill -9 of Redis, AOF everysec", _downs("kill_redis", one_in=5_000, lasts_ms=(0, 3_000)))
)
scenario(
    Scenario(
        "cut_aof",
        "kill -9 of Redis, the AOF's tail cut by up to 4 MB under full prefetch buffers",
        _downs("cut_aof", one_in=8_000, lasts_ms=(0, 2_000)),
    )
)


def _both(random: Random, events: int) -> list[Fault]:
    """Redis loses its tail and the worker dies with it: nobody is left who saw what was lost."""
    faults = []
    for after in points(random, events, max(3, events // 8_000)):
        args = {"draw": random.randrange(1 << 30), "node": random.randrange(1 << 30)}
        faults.append(Fault("cut_aof", after, args, lasts_ms=random.randrange(200, 3_000)))
        faults.append(Fault("kill_worker", after, {"worker": 0}, delay_ms=random.randrange(200), together=True))
    return faults


scenario(Scenario("cut_aof_and_kill", "the AOF cut and the worker killed at once", _both))


def _fills(random: Random, events: int) -> list[Fault]:
    return [
        Fault(
            "fill_redis",
            after,
            {"room_bytes": random.randrange(400_000), "node": random.randrange(1 << 30)},
            lasts_ms=random.randrange(1_000, 8_000),
        )
        for after in points(random, events, max(3, events // 10_000))
    ]


def _stops(random: Random, events: int) -> list[Fault]:
    """Each process in turn, for a moment or for longer than anybody waits."""
    turns = ["worker-0", "broker", "redis", "worker-1"]
    return [
        Fault("freeze", after, {"name": turns[at % len(turns)]}, lasts_ms=random.choice((800, 4_000, 9_000)))
        for at, after in enumerate(points(random, events, max(4, events // 8_000)))
    ]


scenario(Scenario("redis_full", "noeviction, maxmemory reached, raised after a while", _fills))
scenario(Scenario("stop_everything", "SIGSTOP and SIGCONT of each process in turn", _stops, Setup(workers=2)))


def _nodes(random: Random, events: int) -> list[Fault]:
    """One node is killed, cut, frozen; now and then the worker with it."""
    faults = []
    for after in points(random, events, max(4, events // 6_000)):
        node, lasts_ms, dice = random.randrange(3), random.randrange(500, 5_000), random.random()
        if dice < 0.4:
            faults.append(Fault("kill_redis", after, {"node": node}, lasts_ms=lasts_ms))
        elif dice < 0.8:
            faults.append(Fault("cut_aof", after, {"node": node, "draw": random.randrange(1 << 30)}, lasts_ms=lasts_ms))
        else:
            faults.append(Fault("freeze", after, {"name": f"redis-{node}"}, lasts_ms=lasts_ms))
        if random.random() < 0.4:
            faults.append(Fault("kill_worker", after, {"worker": 0}, delay_ms=lasts_ms // 2, together=True))
    return faults


scenario(
    Scenario(
        "cluster",
        "three nodes: one killed, cut or frozen, at times the worker with it",
        _nodes,
        Setup(redises=("cluster",)),
    )
)
