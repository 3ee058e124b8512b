"""Who watches over a running worker: the watchdog on its loop, and the pulse beside it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from features.store.port import Part
from pipeline import restart, telemetry, watchdog
from pipeline.logs import get_logger
from pipeline.patience import StoreThread
from pipeline.pulse import LoopBeat, Organ, Pulse
from pipeline.watchdog import LOOKS_PER_PERIOD, WORK_TIMES, Excuse, Facts, Probe, Watchdog

if TYPE_CHECKING:
    from pipeline.app import App

log = get_logger(__name__)

LOOK_S_MAX = 2.0


def tell_restarts() -> None:
    """Says in the log and in `headrace_restarts_total` how often this process has started itself again."""
    behind = restart.behind(os.environ)
    for cause, times in behind.causes.items():
        telemetry.RESTARTS.labels(cause).inc(times)
    if behind.total:
        log.warning("started again by itself", restart=behind.total, causes=behind.causes)


async def watch(app: App, store: StoreThread, pause: telemetry.Pause, probe: Probe, *, limit_s: float) -> None:
    """Watches until cancelled. `limit_s`: of silence; what is at work has 6 times that."""
    look_s = min(limit_s / LOOKS_PER_PERIOD, LOOK_S_MAX)
    Pulse(organs(app, store, limit_s=limit_s), look_s=look_s).start()
    dog = Watchdog(probe, limit_s=limit_s)
    await watchdog.watch(dog, period_s=look_s, facts=lambda: facts(app, pause))


def facts(app: App, pause: telemetry.Pause) -> Facts:
    """How the parts stand that the worker holds now, and what excuses silence."""
    if not app.edge.is_ready:
        return Facts({}, {}, Excuse.OUTSIDE if pause.active else Excuse.WORK)
    desk, consumer = app.edge.desk, app.consumer
    held = [Part(*tp) for tp in consumer.assignment()]
    given = {part: desk.given.get(part) if consumer.is_placed(part) else None for part in held}
    answered = {part: desk.progress.answered(part) for part in held}
    if pause.active:
        return Facts(given, answered, Excuse.OUTSIDE)
    at_work = desk.busy > 0 or app.rebalancing or app.should_stop
    return Facts(
        given, answered, Excuse.WORK if at_work else Excuse.NONE, sum(map(len, desk.open)), app.edge.leaderless
    )


def organs(app: App, store: StoreThread, *, limit_s: float) -> tuple[Organ, ...]:
    """What must show signs of life beside the loop: the loop itself, the consumer's thread, the store's.

    Call it on the event loop. A call on the store thread ends by the sockets' timeouts; one that does not is stuck.
    """
    loop, ours, consumers = asyncio.get_running_loop(), LoopBeat(), LoopBeat()

    def consumer_sign() -> int | None:
        if app.should_stop or not app.edge.is_ready or (thread := app.consumer.thread_loop) is None:
            return None
        return consumers.sign(thread)

    return (
        Organ("loop blocked", "the event loop does not run", lambda: ours.sign(loop), limit_s),
        Organ("consumer dead", "the consumer's thread does not run", consumer_sign, limit_s),
        Organ("store stuck", "one call on the store thread goes on", lambda: store.under_way, WORK_TIMES * limit_s),
    )
