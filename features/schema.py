"""The wire records: every JSON record that Headrace reads or writes, and how bytes become one.

This file is the one definition. JSON Schemas and the AsyncAPI document are generated from it
(`deploy/schemas/`), the data set folders mirror it, and nothing else in the project describes a record.

Decoding raises `Refused`, which names the field and the reason: that pair is what a dead letter carries.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec

RECORD_BYTES_MAX = 16 << 20
ID_BYTES_MAX = 256
NAME_CHARS_MAX = 64
TEXT_CHARS_MAX = 4096
LIST_ITEMS_MAX = 1000
ATTRIBUTES_MAX = 64
SET_VALUES_MAX = 256
TS_MS_MAX = 253_402_300_799_999  # 9999-12-31, the last millisecond of four-digit years
FUTURE_MS_MAX = 5 * 60 * 1000

USER_ACTIONS = "user_actions"
IMPRESSIONS = "impressions"
ITEMS = "items"
REQUESTS = "recommendation_requests"
RECOMMENDATIONS = "recommendations"
SERVED_FEATURES = "served_features"
DEAD_LETTERS = "dead_letters"
MODEL_CONTROL = "model_control"
INPUT_TOPICS = (USER_ACTIONS, IMPRESSIONS, ITEMS, REQUESTS)

Id = Annotated[
    str, msgspec.Meta(min_length=1, max_length=ID_BYTES_MAX, description="1-256 bytes of UTF-8, no control characters")
]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]
TsMs = Annotated[
    int, msgspec.Meta(ge=0, le=TS_MS_MAX, description="event time, epoch milliseconds; 0 on an item: unknown")
]
Ids = Annotated[list[Id], msgspec.Meta(min_length=1, max_length=LIST_ITEMS_MAX)]
Scalars = Annotated[dict[Name, float | Text], msgspec.Meta(max_length=ATTRIBUTES_MAX)]
Values = Annotated[list[Text], msgspec.Meta(max_length=SET_VALUES_MAX)]
ItemAttributes = Annotated[dict[Name, float | Text | Values], msgspec.Meta(max_length=ATTRIBUTES_MAX)]
Column = Annotated[list[float | None], msgspec.Meta(max_length=LIST_ITEMS_MAX)]
ItemContext = Annotated[dict[Name, Column], msgspec.Meta(max_length=ATTRIBUTES_MAX)]


class UserAction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a user did to an item. Key: user_id. A null value on the topic forgets the key's user."""

    event_id: Id
    user_id: Id
    item_id: Id
    action: Name
    ts_ms: TsMs
    session_id: Id | None = None
    impression_id: Id | None = None
    value: float | None = None
    attributes: Scalars | None = None


class Impression(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A list that was really shown, in display order. Key: user_id."""

    impression_id: Id
    user_id: Id
    item_ids: Ids
    ts_ms: TsMs
    rec_id: Id | None = None
    session_id: Id | None = None
    context: Scalars | None = None
    item_context: ItemContext | None = None


class Item(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What the catalogue says of an item. Key: item_id. The newest ts_ms wins; 0 means: unknown."""

    item_id: Id
    ts_ms: TsMs
    available: bool = True
    attributes: ItemAttributes | None = None


class RecommendationRequest(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Somebody wants an answer now: rank these item_ids, or (absent) find candidates. Key: user_id."""

    request_id: Id
    user_id: Id
    ts_ms: TsMs
    item_ids: Ids | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=LIST_ITEMS_MAX)] | None = None
    context: Scalars | None = None
    item_context: ItemContext | None = None


Rest = Annotated[
    float,
    msgspec.Meta(description="what the score holds beside its reasons: contributions + rest = score, within 1e-6"),
]


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contribution to an item's score, in human words."""

    text: str
    contribution: float


class RecommendedItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ranked item; `source` is the candidate source that proposed it first, `given` for a request's own list."""

    item_id: str
    score: float
    source: str
    reasons: list[Reason] | None = None
    rest: Rest | None = None


class ModelRef(msgspec.Struct, frozen=True):
    """Which model scored: its version (`none` where the candidate sources ranked) and the catalogue's fingerprint."""

    version: str
    features_hash: str


class Trigger(msgspec.Struct, frozen=True):
    """The record that caused a recommendation."""

    topic: str
    partition: int
    offset: int
    ts_ms: int


class Recommendation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer. Key: user_id. Drop repeats by rec_id; keep the highest trigger offset per partition."""

    rec_id: str
    user_id: str
    ts_ms: int
    items: list[RecommendedItem]
    model: ModelRef
    level: str
    event_age_ms: int
    latency_ms: float
    cause: str | None = None
    trigger: Trigger | None = None
    request_id: str | None = None


class ModelControl(msgspec.Struct, frozen=True):
    """Which version of a model serves. Key: the model's name."""

    model: Id
    version: Id
    ts_ms: TsMs


class Refused(ValueError):
    """A record that breaks the contract: the field (`$` for the record as a whole) and the reason."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


InputRecord = UserAction | Impression | Item | RecommendationRequest
R = TypeVar("R", UserAction, Impression, Item, RecommendationRequest)

RECORD_OF_TOPIC: dict[str, type[Any]] = {
    USER_ACTIONS: UserAction,
    IMPRESSIONS: Impression,
    ITEMS: Item,
    REQUESTS: RecommendationRequest,
    RECOMMENDATIONS: Recommendation,
    MODEL_CONTROL: ModelControl,
}
_DECODERS = {topic: msgspec.json.Decoder(kind) for topic, kind in RECORD_OF_TOPIC.items()}
_ID_FIELDS: dict[type[Any], tuple[str, ...]] = {
    UserAction: ("event_id", "user_id", "item_id", "session_id", "impression_id"),
    Impression: ("impression_id", "user_id", "rec_id", "session_id"),
    Item: ("item_id",),
    RecommendationRequest: ("request_id", "user_id"),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_BYTE = re.compile(r"\(byte (\d+)\)")
_KEY = re.compile(rb'"([a-z_]{1,32})"\s*:')
_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`")


def decode(topic: str, raw: bytes) -> InputRecord:
    """The record that `raw` holds on an input topic.

    Raises `Refused` naming the field for anything that breaks the contract: too long, malformed or truncated JSON, a
    missing or mistyped field, an id that is empty, too long or has control characters, a number out of range.

    >>> decode("items", b'{"item_id": "a", "ts_ms": 5}').item_id
    'a'
    >>> decode("items", b'{"item_id": 7, "ts_ms": 5}')
    Traceback (most recent call last):
    features.schema.Refused: item_id: Expected `str`, got `int`
    """
    if len(raw) > RECORD_BYTES_MAX:
        raise Refused("$", f"{len(raw)} bytes (at most {RECORD_BYTES_MAX})")
    try:
        record = _DECODERS[topic].decode(raw)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None
    except UnicodeDecodeError as error:
        raise Refused(_field_before(raw[: _not_utf8(raw)], topic), f"not valid UTF-8: {error.reason}") from None
    except msgspec.DecodeError as error:
        at = _BYTE.search(str(error))
        raise Refused(_field_before(raw[: int(at[1])] if at else raw, topic), str(error)) from None
    except RecursionError:
        raise Refused("$", "nested too deeply") from None
    _check_ids(record)
    _check_item_context(record)
    return record  # type: ignore[no-any-return]


def check_time(record: InputRecord, *, log_ts_ms: int) -> None:
    """Refuses an event time more than 5 minutes ahead of the record's own Kafka timestamp `log_ts_ms`."""
    if record.ts_ms > log_ts_ms + FUTURE_MS_MAX:
        raise Refused("ts_ms", f"{record.ts_ms - log_ts_ms} ms ahead of the log's clock (at most {FUTURE_MS_MAX})")


def _refused(message: str) -> Refused:
    if missing := _MISSING.search(message):
        at = _AT.search(message)
        return Refused(f"{at[1]}.{missing[1]}" if at and at[1] else missing[1], "missing")
    at = _AT.search(message)
    return Refused((at[1] or "$") if at else "$", _AT.sub("", message))


def _not_utf8(raw: bytes) -> int:
    """Where `raw` stops being UTF-8 (the decoder counts within the string it was reading)."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(raw)


def _field_before(head: bytes, topic: str) -> str:
    """The record's field inside which malformed JSON broke off, `$` when it broke before the first."""
    fields = RECORD_OF_TOPIC[topic].__struct_fields__
    names = [name for match in _KEY.findall(head[-TEXT_CHARS_MAX:]) if (name := match.decode()) in fields]
    return names[-1] if names else "$"


def _check_ids(record: Any) -> None:
    for field in _ID_FIELDS[type(record)]:
        value = getattr(record, field)
        if value is not None and not (value.isascii() and value.isprintable()):
            check_id(field, value)
    if not isinstance(record, (Impression, RecommendationRequest)):
        return
    for index, value in enumerate(record.item_ids or ()):
        if not (value.isascii() and value.isprintable()):
            check_id(f"item_ids[{index}]", value)


def check_id(field: str, value: str) -> None:
    """Refuses an id that is empty, longer than 256 bytes of UTF-8, or has control characters."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Refused(field, "not valid UTF-8") from None
    if not 1 <= size <= ID_BYTES_MAX:
        raise Refused(field, f"{size} bytes of UTF-8 (1 to {ID_BYTES_MAX})")
    if _CONTROL.search(value):
        raise Refused(field, "has control characters")


def _check_item_context(record: Any) -> None:
    context = getattr(record, "item_context", None)
    if not context:
        return
    expected = len(record.item_ids or ())
    for name, column in context.items():
        if len(column) != expected:
            raise Refused(f"item_context.{name}", f"{len(column)} values for {expected} item_ids")
