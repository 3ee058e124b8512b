"""`headrace init`: look at a sample, guess its actions, attributes and context, and say why in the file's comments.

Only the first 80 % by time is read, so that nothing of a later test part leaks into the settings.
"""

from __future__ import annotations

import json
import math
import tomllib
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from features.domain import IMPRESSION, RING_ACTIONS_MAX
from features.schema import IMPRESSIONS, USER_ACTIONS, InputRecord, Refused
from pipeline.config import Settings
from pipeline.dataset import DataSetError, read_as_is, records
from pipeline.sample import ActionSeen, Sample, ValuesSeen

SHARE_READ = 0.8
WEIGHT_MAX = 5.0
ANSWERING_MIN = 0.01
PURCHASES_REPEATED_MAX = 0.05
PURCHASE_HORIZON_MIN = 7 * 24 * 60
CANDIDATE_VALUES_MAX = 500
CONTEXT_VALUES_MAX = 1000
FREE_TEXT_SHARE = 0.9
FREE_TEXT_ROWS = 50
FREE_TEXT_CHARS = 60

_NEGATIVE_WORDS = frozenset(
    [
        "cancel",
        "canceled",
        "cancelled",
        "dislike",
        "downvote",
        "hide",
        "remove",
        "report",
        "return",
        "refund",
        "skip",
        "unfollow",
        "unlike",
        "unsubscribe",
        "block",
    ]
)
_PURCHASE_WORDS = frozenset(["buy", "bought", "purchase", "purchased", "checkout", "transaction", "conversion"])
_PURCHASE_NAMES = frozenset(("order", "place_order", "order_placed"))


def initialise(directory: Path, *, before_ms: int | None = None) -> str:
    """The settings for the data set in `directory`, as commented TOML; by no record of `before_ms` or later.

    Raises `DataSetError` where it holds no user action that could be read.
    """
    sample = Sample(is_purchase)
    for record in _first_part(directory, before_ms):
        sample.add(record)
    sample.actions.pop(IMPRESSION, None)  # the topic's own name: the worker refuses such an action, too
    if not sample.actions:
        raise DataSetError(f"{directory}: no user action in the first {SHARE_READ:.0%} by time")
    blocks = (
        _head(sample),
        _item_context(sample),
        _recommend(sample),
        _actions(sample),
        _attributes(sample),
        _context(sample),
    )
    return "\n".join(line for block in blocks for line in block) + "\n"


def settings_of(text: str) -> Settings:
    """The `Settings` that such a TOML text stands for."""
    return msgspec.convert(tomllib.loads(text), Settings)


def weight(rows: int, most: int) -> float:
    """An action's weight from its rarity: the square root of how many times rarer it is than the commonest, 1 to 5.

    >>> weight(1000, 1000), weight(250, 1000), weight(3, 1000)
    (1.0, 2.0, 5.0)
    """
    return round(min(WEIGHT_MAX, math.sqrt(most / rows)), 1)


def grade(weight: float) -> int:
    """A label's grade from the action's weight: 1, from weight 2 on 2, from 4 on 3.

    >>> [grade(w) for w in (1.0, 2.5, 5.0)]
    [1, 2, 3]
    """
    return 1 + (weight >= 2) + (weight >= 4)


def is_negative(name: str, seen: ActionSeen) -> bool:
    """Whether the action speaks against the item: by a word of its name, or most of its values are below 0."""
    return not _NEGATIVE_WORDS.isdisjoint(name.split("_")) or 2 * seen.below_zero > seen.rows


def is_purchase(name: str) -> bool:
    """Whether the name reads like a purchase.

    >>> is_purchase("purchase"), is_purchase("change_of_sort_order")
    (True, False)
    """
    return name in _PURCHASE_NAMES or not _PURCHASE_WORDS.isdisjoint(name.split("_"))


def _first_part(directory: Path, before_ms: int | None) -> Iterator[InputRecord]:
    """The records of the first 80 % by time, and before `before_ms`."""
    end_ms = _end_ms(directory)
    end_ms = end_ms if before_ms is None else min(end_ms, before_ms)
    return (record for record in records(directory, refused=_passed_over) if record.ts_ms < end_ms)


def _end_ms(directory: Path) -> int:
    """The event time (exclusive) where 80 % of the impressions, or of the actions, is over: the earlier of the two."""
    times = {topic: array("q") for topic in (USER_ACTIONS, IMPRESSIONS)}
    for row in read_as_is(directory):
        if row.topic in times:
            times[row.topic].append(row.ts_ms)
    ordered = [sorted(found) for found in times.values() if found]
    end_ms = min((found[int(SHARE_READ * len(found))] for found in ordered), default=0)
    # A log of one single moment has no earlier part: then all of it is read.
    return end_ms if any(found[0] < end_ms for found in ordered) else end_ms + 1


def _passed_over(where: str, error: Refused) -> None:
    """A broken line teaches nothing; the worker will put it into the dead letters with its reason."""


def _head(sample: Sample) -> Iterator[str]:
    rows = sum(seen.rows for seen in sample.actions.values())
    yield "# Written by `headrace init` from the first 80 % by time of a data set:"
    yield f"# {rows} actions, {sample.impressions} impressions, {sample.items} items. Every guess stands with its count."
    yield "# Only what the sample can tell stands here; deploy/worker.toml is the manual of all settings."
    yield ""


def _item_context(sample: Sample) -> Iterator[str]:
    for name, rows in sample.item_context.items():
        yield f"# {_quoted(name)}: one number per shown item on {rows} of {sample.impressions} impressions"
    yield f"item_context = [{', '.join(map(_quoted, sample.item_context))}]"
    yield ""


def _recommend(sample: Sample) -> Iterator[str]:
    yield "[recommend]"
    bought = [seen for name, seen in sample.actions.items() if is_purchase(name) and not is_negative(name, seen)]
    filters = ["available"]
    if bought:
        paired, repeats = sum(seen.paired for seen in bought), sum(seen.repeats for seen in bought)
        few = repeats < PURCHASES_REPEATED_MAX * paired
        yield f"# {repeats} of {paired} purchases ({repeats / max(1, paired):.1%}) repeat an earlier one of the same user:"
        yield f"# the bought-already filter is {'on' if few else 'off'} (on below {PURCHASES_REPEATED_MAX:.0%})"
        filters += ["bought"] * few
    else:
        yield "# no purchase action: nothing for the bought-already filter to go by"
    yield f"filters = {json.dumps(filters)}"
    yield ""


def _actions(sample: Sample) -> Iterator[str]:
    ordered = sorted(sample.actions.items(), key=lambda entry: (-entry[1].rows, entry[0]))
    labels = _labels(ordered)
    counted = {name for name, _ in sorted(ordered, key=lambda entry: entry[0] not in labels)[:RING_ACTIONS_MAX]}
    if len(ordered) > RING_ACTIONS_MAX:
        yield f"# {len(ordered)} actions; items keep windows of at most {RING_ACTIONS_MAX}: labels first, then by rows"
    for name, seen in ordered:
        yield from _action(name, seen, label=name in labels, counted=name in counted, most=_most(ordered))


def _most(ordered: list[tuple[str, ActionSeen]]) -> int:
    return next((seen.rows for name, seen in ordered if not is_negative(name, seen)), ordered[0][1].rows)


def _labels(ordered: list[tuple[str, ActionSeen]]) -> set[str]:
    """The label actions: those of which at least 1 % carry an impression_id; where none does, all but negatives."""
    positive = [(name, seen) for name, seen in ordered if not is_negative(name, seen)]
    answering = {name for name, seen in positive if seen.answering >= max(1, ANSWERING_MIN * seen.rows)}
    return answering or {name for name, _ in positive}


def _action(name: str, seen: ActionSeen, *, label: bool, counted: bool, most: int) -> Iterator[str]:
    negative, purchase = is_negative(name, seen), is_purchase(name)
    heavy = 0.0 if negative else WEIGHT_MAX if purchase and seen.rows < most else weight(seen.rows, most)
    yield "[[actions]]"
    yield f"name = {_quoted(name)}  # {seen.rows} rows, {seen.answering} answer an impression"
    yield f"weight = {heavy}  # {'negative' if negative else _why(heavy, purchase=purchase)}"
    yield f"grade = {grade(heavy) if label else 0}  # {'a label' if label else 'not a label'}"
    if negative:
        yield f"negative = true  # by its name, or its value: below 0 on {seen.below_zero} rows"
        yield "trigger = false"
    if purchase and not negative:
        yield "purchase = true  # by its name"
        if label:
            yield f"horizon_min = {PURCHASE_HORIZON_MIN}  # 7 days: who buys takes time"
    if not counted:
        yield "counted = false"
    yield ""


def _quoted(name: str) -> str:
    """A name as TOML writes it.

    >>> _quoted("a#b")
    '"a#b"'
    """
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _why(heavy: float, *, purchase: bool) -> str:
    if heavy == 1.0:
        return "the commonest"
    return "a purchase" if purchase else "by its rarity"


def _attributes(sample: Sample) -> Iterator[str]:
    for name, seen in sample.attributes.items():
        quoted = _quoted(name)
        if seen.kind == "number":
            note = f"a number on {seen.numbers} of {sample.items} items"
        else:
            note = f"{len(seen.distinct)} distinct on {seen.rows} of {sample.items} items"
        if _is_free_text(seen):
            yield f"# {quoted}: {note}, {seen.chars // max(1, seen.held)} characters each: free text, left out"
            yield ""
            continue
        yield "[[attributes]]"
        yield f"name = {quoted}  # {note}"
        yield f'kind = "{seen.kind}"'
        if seen.kind != "number" and 2 <= len(seen.distinct) <= CANDIDATE_VALUES_MAX:
            yield f"candidates = true  # {len(seen.distinct)} values: few enough for a list of popular items each"
        yield ""


def _is_free_text(seen: ValuesSeen) -> bool:
    """Nearly one value an item, or long texts: nothing that two items would share."""
    if seen.kind != "category":
        return False
    unique = len(seen.distinct) > FREE_TEXT_SHARE * seen.texts and seen.texts >= FREE_TEXT_ROWS
    return unique or seen.chars > FREE_TEXT_CHARS * seen.texts


def _context(sample: Sample) -> Iterator[str]:
    for name, seen in sample.context.items():
        if seen.kind == "category" and len(seen.distinct) > CONTEXT_VALUES_MAX:
            yield f"# {_quoted(name)}: {len(seen.distinct)} distinct values on {seen.rows} impressions: too many, left out"
            yield ""
            continue
        note = "a number" if seen.kind == "number" else f"{len(seen.distinct)} distinct values"
        yield "[[context]]"
        yield f"name = {_quoted(name)}  # {note} on {seen.rows} of {sample.impressions} impressions"
        yield f'kind = "{seen.kind}"'
        yield ""
