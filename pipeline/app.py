"""The composition root: settings in, a Faust app out. `faust -A pipeline.app worker` and `headrace worker` both use it.

Everything is put together here and nowhere else: which store, which sources, which filters, which model.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
from confluent_kafka.admin import AdminClient
from faust.app.base import BootStrategy
from faust.types import TP

from features import schema
from features.state import State
from features.store.port import FeatureStore, Part, StateLost, StateMoved
from features.store.redis import RedisStore
from features.view import StateView
from pipeline import agents, heap, models, sweeping, telemetry, vitals
from pipeline.config import Settings, Worker, load, require_actions
from pipeline.edge import ANSWER_S, WorkerEdge
from pipeline.engine import Engine
from pipeline.kafka import driver
from pipeline.kafka.access import refusal
from pipeline.kafka.clients import SMALL_ANSWERS, confluent, faust_credentials
from pipeline.kafka.edge import Options
from pipeline.kafka.publisher import Publisher
from pipeline.logs import get_logger
from pipeline.model_control import Follower
from pipeline.overload import Ladder
from pipeline.patience import StoreThread
from pipeline.progress import Progress
from pipeline.redis_login import login
from pipeline.watchdog import Probe, listen
from recommender.candidates import SOURCES
from recommender.filters import filters
from recommender.model.registry import Registry
from recommender.recommend import Recommender

log = get_logger(__name__)

REBALANCE_S = 30.0
METADATA_MS = 15_000  # new partitions, and topics that a starting broker did not know yet, go unseen no longer
LOGS_LOOK_S = 10.0  # each look leaves a topic id behind for good: confluent-kafka 2.16 counts one reference too many
# Records and rows hold no cycles: at the default of 700 the collector cost 4 us an event. But LightGBM leaves 4 objects in
# a cycle a call: at 100 000 they were 17 MB of garbage, a sawtooth of ten minutes at 40 answers a second.
GC_THRESHOLD = 10_000
MODEL_S = 10.0  # a worker that starts waits so long for its model; then it answers without


class _WithoutProducer(BootStrategy):  # type: ignore[misc]
    enable_kafka_producer = False  # ours is a confluent-kafka one


class App(faust.App):  # type: ignore[misc]
    """A Faust app that knows its edge (see `pipeline.kafka.driver`)."""

    BootStrategy = _WithoutProducer
    edge: WorkerEdge
    edge_options: Any
    metrics_at: tuple[str, int]

    async def on_first_start(self) -> None:
        """Metrics come first: a worker that waits for its broker says so."""
        await super().on_first_start()
        vitals.tell_restarts()
        telemetry.serve(*self.metrics_at)

    def _create_directories(self) -> None:
        """Without tables there is nothing to keep on disk."""


def build(settings: Settings) -> App:
    """The worker as a Faust app; connects to nothing before it is started."""
    driver.register()
    app = App(settings.kafka.group, **faust_settings(settings, web=_web(settings.worker)))
    pause, progress = telemetry.Pause(), Progress()
    store = StoreThread(pause)
    prefix = settings.kafka.topic_prefix
    out = agents.Out(prefix + schema.RECOMMENDATIONS, prefix + schema.SERVED_FEATURES, prefix + schema.DEAD_LETTERS)
    for topic in out.recommendations, out.served_features, out.dead_letters:
        telemetry.OUTPUT_REFUSED.labels(topic)  # from 0 on: a series that begins with 1 is no increase to an alert
    kinds = {prefix + name: name for name in schema.INPUT_TOPICS}
    registry = models.registry(settings)
    control = Follower(settings.kafka, registry, model=settings.model.name, retry_s=settings.model.poll_ms / 1000)

    def open_engine(identities: Mapping[str, str]) -> Engine:
        """Over the generation of the state that serves now. On the store thread, again until the store is there."""
        opened = open_store(settings)
        for topic, identity in identities.items():
            opened.bind_log(topic, identity)
        return assemble(settings, opened, registry, kinds=kinds, identities=identities)

    def open_desk(identities: Mapping[str, str]) -> agents.Desk:
        control.start()
        engine = open_engine(identities)
        control.wait(MODEL_S)
        publisher = Publisher(
            settings.kafka,
            on_trouble=lambda cause: pause.set("publisher", cause),
            on_refused=lambda topic: telemetry.OUTPUT_REFUSED.labels(topic).inc(),
        )
        ladder = Ladder(settings.overload.deadline_ms / 1000, settings.overload.calm_ms / 1000)
        return agents.Desk(engine, store, publisher, progress, Reader(app), out, {}, ladder)

    app.edge = WorkerEdge(
        admin=AdminClient(confluent(settings.kafka) | SMALL_ANSWERS),
        inputs=tuple(kinds),
        outputs=(out.recommendations, out.served_features, out.dead_letters),
        store=store,
        progress=progress,
        pause=pause,
        open_desk=open_desk,
        open_engine=open_engine,
        refusal=lambda: refusal(settings.kafka, within_s=ANSWER_S),
        should_stop=lambda: app.should_stop,
    )
    app.metrics_at = settings.worker.metrics_host, settings.worker.metrics_port
    app.edge_options = Options(settings.kafka.fetch_wait_ms, settings.kafka.fetch_max_bytes, settings.worker.slice_max)
    for topic in kinds:
        _attach_agent(app, topic, settings)
    _attach_life(app, settings, store, progress, pause, control)
    return app


def open_store(settings: Settings, *, generation: int | None = None) -> RedisStore:
    """The configured store, its layout not opened yet; on the serving generation, or on one that is being built."""
    return RedisStore(
        settings.redis.url,
        app=settings.redis.app,
        shards=settings.redis.shards,
        timeout_ms=settings.redis.timeout_ms,
        generation=generation,
        login=login(settings.redis),
    )


def assemble(
    settings: Settings,
    store: FeatureStore,
    registry: Registry,
    *,
    kinds: Mapping[str, str],
    identities: Mapping[str, str],
) -> Engine:
    """State, view, path and model over one store."""
    domain, asked = settings.domain, settings.recommend
    state = State(store, domain)
    view = StateView(store, domain, state.layout, freshness_ms=asked.freshness_ms)
    path = Recommender(
        view,
        models.columns(settings),
        SOURCES,
        filters(asked.filters, domain=domain, layout=state.layout, blocked_items=asked.blocked_items),
        asked.quotas.shares,
        asked.candidates_max,
        registry.current,
        lambda: registry.cause,
        shadow_of=registry.shadow,
        sample_rate=asked.served_sample,
        reasons=asked.reasons,
    )
    actions = {action.name: action for action in domain.actions}
    return Engine(domain, state, view, path, kinds, identities, actions, asked.k)


def _web(worker: Worker) -> bool:
    """Whether Faust's pages are served: a taken port, like that of the metrics, is said and done without."""
    if worker.web_port == 0:
        return False
    try:
        socket.create_server((worker.web_host, worker.web_port)).close()
    except OSError as error:
        log.warning("no web: set worker.web_port to a free port, one a worker", port=worker.web_port, cause=str(error))
        return False
    return True


def faust_settings(settings: Settings, *, web: bool) -> dict[str, Any]:
    """Faust's own settings; those of the research notes that cost correctness when left at their default."""
    kafka, worker = settings.kafka, settings.worker
    return {
        "broker": [f"{driver.SCHEME}://{host}" for host in kafka.bootstrap.split(",")],
        "producer_broker": [f"kafka://{host}" for host in kafka.bootstrap.split(",")],
        "broker_credentials": faust_credentials(kafka),
        "broker_session_timeout": kafka.session_timeout_ms / 1000,
        "broker_heartbeat_interval": kafka.heartbeat_ms / 1000,
        "broker_rebalance_timeout": REBALANCE_S,
        "consumer_metadata_max_age_ms": METADATA_MS,
        "broker_commit_interval": kafka.commit_interval_ms / 1000,
        "stream_buffer_maxsize": worker.slices_queued_max,
        "stream_wait_empty": False,  # True lets a waiting block hold the rebalance
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "web_enabled": web,
        "web_host": worker.web_host,
        "web_bind": worker.web_host,  # Faust's default is every interface
        "web_port": worker.web_port or 6066,
        "datadir": Path(worker.data_dir),
        "value_serializer": "raw",
    }


class Reader:
    """What the agents ask of the driver, by way of the app's consumer."""

    def __init__(self, app: App) -> None:
        self._app = app

    def seek_no(self, part: Part) -> int:
        """The number that a slice of `part` must carry to count."""
        return int(self._app.consumer.seek_no(part))

    def restart(self, part: Part) -> None:
        """Read `part` again from where the state says."""
        self._app.consumer.replace(TP(*part))

    def log_end(self, part: Part) -> int | None:
        """The end offset of `part` as the newest fetch saw it."""
        end: int | None = self._app.consumer.log_end(part)
        return end


def _attach_agent(app: App, topic: str, settings: Settings) -> None:
    async def agent(stream: Any) -> None:
        await agents.serve(stream, lambda: app.edge.desk, batch_max=settings.worker.batch_max)

    app.agent(driver.topic(app, topic), name=topic)(agent)


def _attach_life(
    app: App, settings: Settings, store: StoreThread, progress: Progress, pause: telemetry.Pause, control: Follower
) -> None:
    """What runs beside the agents: heartbeat, lag, signs of life from the broker, watchdog, and a clean end."""

    async def beats() -> None:
        while not app.should_stop:
            await app.sleep(settings.redis.beat_ms / 1000)
            if app.edge.is_ready:
                await _beat(app, store, progress)

    async def sweeps() -> None:
        while not app.should_stop:
            await app.sleep(sweeping.LOOK_S)
            if app.edge.is_ready:
                await sweeping.sweep(store, app.edge.desk.engine.state)

    def probe() -> Probe:
        return Probe(settings.kafka, topic=settings.kafka.topic_prefix + schema.USER_ACTIONS)

    async def broker() -> None:
        await listen(probe(), tell=lambda cause: pause.set("probe", cause))

    async def logs() -> None:
        while not app.should_stop:
            await app.sleep(LOGS_LOOK_S)
            if app.edge.is_ready:
                await app.edge.look_at_logs()

    async def memory() -> None:
        while not app.should_stop:
            await app.sleep(heap.GIVE_BACK_S)
            await asyncio.to_thread(heap.give_back)

    async def watchdog() -> None:
        await vitals.watch(app, store, pause, probe(), limit_s=settings.worker.watchdog_ms / 1000)

    async def revoked(_: Any, partitions: set[TP], **__: Any) -> None:
        await app.edge.release([Part(*tp) for tp in partitions])

    async def shutdown(_: Any, **__: Any) -> None:
        await asyncio.to_thread(control.stop)
        if app.edge.is_ready:
            await asyncio.to_thread(app.edge.desk.publisher.close)

    for task in (beats, sweeps, broker, logs, memory, watchdog):
        app.task(task)
    app.on_partitions_revoked.connect(revoked)
    app.on_before_shutdown.connect(shutdown)


async def _beat(app: App, store: StoreThread, progress: Progress) -> None:
    """Verifies and moves all marks; a loss that shows here is mended like one that shows in a step."""
    desk = app.edge.desk
    engine = desk.engine
    try:
        await store.patiently("heartbeat", engine.state.beat)
    except StateMoved as moved:
        await app.edge.move(engine, moved)
    except StateLost as error:
        telemetry.HWM_REGRESSIONS.labels(error.part.topic).inc()
        log.warning("the store lost data, seeking back", cause=str(error))
        desk.reader.restart(error.part)
    except Exception as error:
        agents.stop_loudly(f"the heartbeat failed: {error}", error)
    desk.rest()
    telemetry.LAG.clear()  # parts come and go
    for tp in app.consumer.assignment():
        end, answered = app.consumer.log_end(tp), progress.answered(Part(*tp))
        if end is not None and answered is not None:
            telemetry.LAG.labels(tp.topic, str(tp.partition)).set(max(0, end - answered))


def run_worker(settings: Settings) -> None:
    """Runs one worker until it is told to stop (SIGTERM, SIGINT); never returns."""
    heap.bound()
    app = build(settings)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.execute_from_commandline()


def __getattr__(name: str) -> Any:
    """`app`, built on first use from HEADRACE_CONFIG: what `faust -A pipeline.app worker` asks for."""
    if name != "app":
        raise AttributeError(name)
    path = os.environ.get("HEADRACE_CONFIG")
    built = build(require_actions(load(Path(path) if path else None, os.environ)))
    globals()["app"] = built
    return built
