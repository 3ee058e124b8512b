"""What happens between a worker and its servers: slow lines, resets, connections that swallow everything."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.chaos.faults import Fault, fault
from tests.chaos.proxy import Proxy
from tests.chaos.scenarios import Scenario, points, scenario
from tests.chaos.servers import Apache
from tests.chaos.stand import Setup, Stand

PLACED = "reading "
REDIS_TIMEOUT_MS = 2_000  # of a worker; a half-open connection outlasts it
BROKER_SILENCE_MS = 11_000  # the consumer gives a silent connection up after 10 s, the producer likewise


def between(stand: Stand) -> None:
    """Puts a proxy before each server; the truth, the traffic and the verdict go past them."""
    redis = Proxy(stand.redis.url)
    redis.__enter__()
    stand.on_close(redis.__exit__)
    stand.proxies["redis"] = redis
    stand.redis_of_workers = f"redis://{redis.address}/0"
    if isinstance(stand.broker, Apache):
        stand.proxies["broker"] = stand.broker.proxy
        stand.bootstrap_of_workers = stand.broker.proxy.address


@fault
def slow(stand: Stand, *, line: str, ms: float, bytes_s: int = 0) -> Callable[[], None]:
    """So many milliseconds each way, and so few bytes a second."""
    proxy = stand.proxies[line]
    proxy.delay(ms)
    proxy.bandwidth(bytes_s)

    def heal() -> None:
        proxy.delay(0)
        proxy.bandwidth(0)

    return heal


@fault
def cut(stand: Stand, *, line: str) -> Callable[[], None]:
    """RST to every connection, and to new ones, until it is back."""
    stand.proxies[line].cut()
    return stand.proxies[line].heal


@fault
def reset(stand: Stand, *, line: str) -> None:
    """RST to every connection, once: what was on its way is half done."""
    stand.proxies[line].reset()


@fault
def half_open(stand: Stand, *, line: str) -> Callable[[], None]:
    """Every connection swallows what it gets, for ever; those made after the end work."""
    stand.proxies[line].half_open()
    return stand.proxies[line].heal


def _slow(line: str) -> Callable[[Random, int], list[Fault]]:
    def plan(random: Random, events: int) -> list[Fault]:
        return [
            Fault(
                "slow",
                after,
                {
                    "line": line,
                    "ms": random.choice((2, 10, 50, 200)),
                    "bytes_s": random.choice((0, 0, 200_000)),
                },
                lasts_ms=random.randrange(1_000, 8_000),
            )
            for after in points(random, events, max(4, events // 10_000))
        ]

    return plan


def _cuts(random: Random, events: int) -> list[Fault]:
    """Resets and cuts of either line, at times of both, at times with a kill in the middle."""
    plan = []
    for after in points(random, events, max(4, events // 5_000)):
        line, dice = random.choice(("redis", "broker")), random.random()
        if dice < 0.4:
            plan.append(Fault("reset", after, {"line": line}, delay_ms=random.randrange(300)))
            continue
        lasts_ms = random.randrange(200, 9_000)
        plan.append(Fault("cut", after, {"line": line}, lasts_ms=lasts_ms))
        if dice > 0.85:
            other = "redis" if line == "broker" else "broker"
            plan.append(Fault("cut", after, {"line": other}, lasts_ms=lasts_ms // 2, together=True))
        elif dice > 0.7:
            plan.append(Fault("kill_worker", after, {"worker": 0}, delay_ms=lasts_ms // 2, together=True))
    return plan


def _half_open(random: Random, events: int) -> list[Fault]:
    plan = []
    for number, after in enumerate(points(random, events, max(3, events // 15_000))):
        line = ("broker", "redis")[number % 2]
        longest_ms = 3 * REDIS_TIMEOUT_MS if line == "redis" else 2 * BROKER_SILENCE_MS
        plan.append(Fault("half_open", after, {"line": line}, lasts_ms=random.randrange(500, longest_ms)))
        if random.random() < 0.3:  # a worker that starts into it
            plan.append(Fault("kill_worker", after, {"worker": 0}, delay_ms=300, together=True))
    return plan


scenario(
    Scenario("slow_redis", "2 to 200 ms each way to Redis, at times 200 kB/s", _slow("redis"), Setup(prepare=between))
)
scenario(
    Scenario(
        "slow_broker",
        "2 to 200 ms each way to the broker, at times 200 kB/s",
        _slow("broker"),
        Setup(prepare=between, brokers=("apache",)),
    )
)
scenario(
    Scenario(
        "cut_network",
        "connections to Redis and broker reset, refused for seconds, with kills in between",
        _cuts,
        Setup(prepare=between, brokers=("apache",)),
    )
)
scenario(
    Scenario(
        "half_open",
        "connections swallow everything for longer than timeouts, then new ones work; workers start into it",
        _half_open,
        Setup(prepare=between, brokers=("apache",)),
    )
)
