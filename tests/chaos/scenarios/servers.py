"""What happens to the servers: killed, cut, full, frozen."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

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
    stand.redis.kill(node)
    return lambda: stand.redis.restart(node)


@fault
def cut_aof(stand: Stand, *, draw: int, bytes_max: int = CUT_BYTES_MAX, node: int = 0) -> Callable[[], None]:
    """Kill -9 and the file's tail gone, as after a power loss; then a start on what is left."""
    stand.redis.kill(node)
    stand.redis.cut(Random(draw), bytes_max=bytes_max, node=node)
    return lambda: stand.redis.restart(node)


def _downs(kind: str, *, one_in: int, lasts_ms: tuple[int, int]) -> Callable[[Random, int], list[Fault]]:
    def plan(random: Random, events: int) -> list[Fault]:
        return [
            Fault(kind, after, {"draw": random.randrange(1 << 30)} if kind == "cut_aof" else {},
                  lasts_ms=random.randrange(*lasts_ms))
            for after in points(random, events, max(3, events // one_in))
        ]  # fmt: skip

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
