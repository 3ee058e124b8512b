"""Two brokers, one of which is killed or frozen: its partitions wait for it, or move to the other where they lie on both."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.chaos.faults import Fault, fault
from tests.chaos.scenarios import Scenario, points, scenario
from tests.chaos.stand import Setup, Stand, StandBroken
from tests.second_broker import GROUPS_TOPIC, SecondBroker, make_groups_topic, replicas


@fault
def kill_second(stand: Stand) -> Callable[[], None]:
    """Kill -9, then a start on the same data."""
    second = _second(stand)
    second.kill()
    return second.restart


def _second(stand: Stand) -> SecondBroker:
    if stand.second_broker is None:
        raise StandBroken("there is one broker only")
    return stand.second_broker


def _coordinated_by_the_first(stand: Stand) -> None:
    """The groups' topic is made while there is no second broker: who leads the group is not what is tried here."""
    make_groups_topic(stand.broker.bootstrap)
    _start_second(stand)


def _start_second(stand: Stand) -> None:
    second = SecondBroker(
        stand.directory / "second", first=stand.directory / "broker", properties=stand.broker_properties
    )
    stand.on_close(second.stop)
    stand.second_broker = second


def _start_second_with_all(stand: Stand) -> None:
    """The groups' topic lies on both, too."""
    _start_second(stand)
    make_groups_topic(stand.broker.bootstrap)
    if any(count != 2 for count in replicas(stand.broker.bootstrap, GROUPS_TOPIC)):
        raise StandBroken(f"{GROUPS_TOPIC} does not lie on both brokers")


def _losses(random: Random, events: int) -> list[Fault]:
    """Killed and frozen by turns that are drawn: for less than a session (3 s), and for longer; for sure longer once each."""
    kinds, lasts_ms = (("kill_second", {}), ("freeze", {"name": "second-broker"})), (500, 4_000, 12_000)
    faults = []
    for at, after in enumerate(points(random, events, max(3, events // 10_000))):
        kind, args = kinds[at] if at < len(kinds) else random.choice(kinds)
        faults.append(Fault(kind, after, args, lasts_ms=lasts_ms[-1] if at < len(kinds) else random.choice(lasts_ms)))
    return faults


scenario(
    Scenario(
        "lose_leaders",
        "two brokers, every partition on one of them: the second is killed or frozen",
        _losses,
        Setup(workers=2, brokers=("apache",), prepare=_coordinated_by_the_first),
    )
)
scenario(
    Scenario(
        "fail_over",
        "two brokers, every partition on both: the second is killed or frozen, what it led moves",
        _losses,
        Setup(
            workers=2,
            brokers=("apache",),
            prepare=_start_second_with_all,
            replication=2,
            broker_properties={"offsets.topic.replication.factor": "2"},
        ),
    )
)
