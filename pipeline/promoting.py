"""Which version serves, decided: the load checks, the gate, the history, and the record on model_control.

First the line in the history, then the record. The other way round a crash in between would leave a version serving
that the history does not know, and a rollback would go one too far; a line whose record never went out is harmless,
since a rollback goes by what model_control names.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from pipeline.config import ConfigError, Settings, require_actions
from pipeline.model_control import name_version, named, shadow_of
from pipeline.models import columns, folder, opener
from recommender.model import promotions
from recommender.model.artefact import ModelRefused, inspect, latency_ms, read_manifest
from recommender.model.gate import Verdict, judge, judge_alone
from recommender.model.manifest import Window, golden_rows
from recommender.model.promotions import Promotion
from recommender.model.registry import open_version, versions
from recommender.model.rows import TrainingRows

HeldOut = Callable[[int], TrainingRows]  # the labelled rows of queries newer than so many epoch milliseconds


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command. refused: the reasons, empty where it was done. version None: none is named now."""

    model: str
    action: str
    version: str | None
    before: str | None = None
    forced: bool = False
    refused: list[str] = []
    verdict: Verdict | None = None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A version in the registry, with the cheap checks: `refused` says what is wrong with it."""

    version: str
    serving: bool = False
    shadow: bool = False
    refused: str | None = None
    trees: int | None = None
    window: Window | None = None
    metrics: dict[str, float] = {}


def promote(
    settings: Settings, version: str, *, now_ms: int, held_out: HeldOut | None = None, force: bool = False
) -> Outcome:
    """Names `version` as the one that serves, if it passes the load checks and the gate.

    held_out: where the gate's lists come from; not needed where nothing serves yet. force: without the comparison,
    never without the checks. Raises `ConfigError`, `KafkaException` where the broker is away.
    """
    model = settings.model.name
    serving = named(settings.kafka).get(model)
    outcome = Outcome(model=model, action="promote", version=version, before=serving, forced=force)
    try:
        verdict = _verdict(settings, version, serving, held_out=held_out, force=force)
    except ModelRefused as refusal:
        return msgspec.structs.replace(outcome, refused=[refusal.reason])
    if not verdict.passed:
        return msgspec.structs.replace(outcome, refused=verdict.refused, verdict=verdict)
    line = Promotion(ts_ms=now_ms, action="promote", version=version, before=serving, forced=force, verdict=verdict)
    _name(settings, model, line)
    return msgspec.structs.replace(outcome, verdict=verdict)


def roll_back(settings: Settings, *, now_ms: int) -> Outcome:
    """Names the version that served before; the load checks hold, no comparison. Raises as `promote`."""
    model, place = settings.model.name, folder(settings)
    serving = named(settings.kafka).get(model)
    outcome = Outcome(model=model, action="rollback", version=None, before=serving)
    if serving is None:
        return msgspec.structs.replace(outcome, refused=["no version serves: there is nothing to go back from"])
    version = promotions.before(promotions.history(place), serving)
    if version is None:
        return msgspec.structs.replace(outcome, refused=[f"{promotions.FILE} knows no version before {serving}"])
    outcome = msgspec.structs.replace(outcome, version=version)
    try:
        open_version(place, version, opener(require_actions(settings)))
    except ModelRefused as refusal:
        return msgspec.structs.replace(outcome, refused=[refusal.reason])
    _name(settings, model, Promotion(ts_ms=now_ms, action="rollback", version=version, before=serving))
    return outcome


def set_shadow(settings: Settings, version: str | None, *, now_ms: int) -> Outcome:
    """Names the shadow, which scores without being shown; None: no shadow. The load checks hold. Raises as `promote`."""
    model, place = shadow_of(settings.model.name), folder(settings)
    before = named(settings.kafka).get(model)
    outcome = Outcome(model=model, action="shadow", version=version, before=before)
    try:
        if version is not None:
            open_version(place, version, opener(require_actions(settings)))
    except ModelRefused as refusal:
        return msgspec.structs.replace(outcome, refused=[refusal.reason])
    place.mkdir(parents=True, exist_ok=True)
    _name(settings, model, Promotion(ts_ms=now_ms, action="shadow", version=version, before=before))
    return outcome


def listing(settings: Settings, control: dict[str, str]) -> list[Listed]:
    """The registry's versions, newest first. control: what model_control names."""
    place, features = folder(settings), columns(require_actions(settings))
    serving, shadow = control.get(settings.model.name), control.get(shadow_of(settings.model.name))
    found = []
    for version in versions(place):
        listed = Listed(version=version, serving=version == serving, shadow=version == shadow)
        try:
            manifest, _ = inspect(place / version, features)
        except ModelRefused as refusal:
            found.append(msgspec.structs.replace(listed, refused=refusal.reason))
            continue
        found.append(
            msgspec.structs.replace(listed, trees=manifest.num_trees, window=manifest.window, metrics=manifest.metrics)
        )
    return found


def _verdict(
    settings: Settings, version: str, serving: str | None, *, held_out: HeldOut | None, force: bool
) -> Verdict:
    """The gate's word. Raises `ModelRefused` for a candidate that fails the load checks."""
    place, open_model = folder(settings), opener(require_actions(settings), timed=False)
    candidate = open_version(place, version, open_model)
    manifest = read_manifest(place / version)
    took_ms = latency_ms(candidate, golden_rows(manifest), time.thread_time)
    alone = judge_alone(candidate, latency_ms=took_ms, budget_ms=settings.model.budget_ms)
    if serving is None or force:
        return alone
    if version == serving:
        return msgspec.structs.replace(alone, refused=[f"{version} serves already"])
    if held_out is None:
        needed = f"{serving} serves: labelled lists are needed to compare with it (--on DIR), or --force"
        return msgspec.structs.replace(alone, serving=serving, refused=[*alone.refused, needed])
    try:
        against = open_version(place, serving, open_model)
    except ModelRefused as refusal:
        why = f"{serving}, which model_control names, cannot be compared with: {refusal.reason}; --force goes without"
        return msgspec.structs.replace(alone, serving=serving, refused=[*alone.refused, why])
    after_ms = max(manifest.window.last_ts_ms, read_manifest(place / serving).window.last_ts_ms)
    return judge(
        candidate,
        against,
        held_out(after_ms),
        after_ms=after_ms,
        latency_ms=took_ms,
        budget_ms=settings.model.budget_ms,
    )


def _name(settings: Settings, model: str, line: Promotion) -> None:
    """Raises `ConfigError` where the history cannot be written: then no record goes out."""
    try:
        promotions.note(folder(settings), line)
    except OSError as error:
        raise ConfigError(
            f"{folder(settings) / promotions.FILE}: {error.strerror}; nothing was named, what served goes on"
        ) from None
    name_version(settings.kafka, model, line.version, ts_ms=line.ts_ms)
