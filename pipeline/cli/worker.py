"""`headrace worker`: one pipeline worker on the configured Kafka and Redis; run more for more partitions."""

from __future__ import annotations

import signal
import sys

import click

from pipeline import logs
from pipeline.cli import with_settings
from pipeline.config import Settings, require_actions, secret
from pipeline.kafka.access import admit
from pipeline.pulse import bounded

START_S = 60.0  # it takes 20 at most; librdkafka waits by the wall clock, and one that is put back makes that longer


@click.command(name="worker")
@with_settings
def command(*, settings: Settings) -> None:
    """Read events, keep the state, publish recommendations, until told to stop.

    A stalled worker starts itself again. Exit codes: 0 told to stop, 2 settings, or Kafka refuses the login or a right
    at the start, 70 a promise is broken or a right is gone (the log says which), 75 stalled again and again.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # to pid 1 it means nothing else, until Faust listens to it
    from pipeline.app import run_worker

    require_actions(settings)
    secret("redis.password", settings.redis.password_file)  # here it is one line, later a worker that stops
    logs.set_up(level=settings.worker.log_level, form=settings.worker.log_format)
    with bounded("start stuck", "the broker's client does not come back", limit_s=START_S):
        admit(settings.kafka)
    run_worker(settings)
