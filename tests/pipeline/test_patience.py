"""Waiting for the store: what it leaves behind when it ends otherwise than well."""

import asyncio

import pytest

from features.store.port import StateLost, StoreAway
from pipeline import patience
from pipeline.patience import StoreThread
from pipeline.telemetry import Pause


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(patience, "BACKOFF_S", (0.001, 0.002))
    pause = Pause()
    thread = StoreThread(pause)
    thread.pause = pause
    yield thread
    thread.close()


def failing(*errors):
    left = list(errors)

    def call():
        raise left.pop(0) if len(left) > 1 else left[0]

    return call


async def test_who_is_cancelled_while_it_waits_waits_no_longer(store):
    waiting = asyncio.create_task(store.patiently("start", failing(StoreAway("gone"))))
    while not store.pause.active:
        await asyncio.sleep(0.001)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not store.pause.active


async def test_a_store_that_comes_back_with_a_loss_is_waited_for_no_longer(store):
    with pytest.raises(StateLost):
        await store.patiently("items", failing(StoreAway("gone"), StateLost("behind", None)))
    assert not store.pause.active
