"""What is fuzzed: every reader of bytes that somebody else wrote. A target takes any bytes; what it raises is a bug.

Each says in its own words what must hold: a refusal by the one error that its callers know, or a sound value.
`tests/fuzz/test_targets.py` runs all of them for a moment, `make fuzz` one of them for long under atheris.
"""

from __future__ import annotations

import atexit
import gzip
import json
import math
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec
import numpy as np

from features import item_record, neighbours, rings, schema, tombstone, user_log
from features.domain import Action, Attribute, Domain
from features.facts import Fact
from features.fold import fold, rules_of
from features.ids import hash64
from features.schema import Refused
from features.store.memory import MemoryStore
from features.store.port import Part
from pipeline import dataset, initialise, publishing
from pipeline.config import ConfigError, load
from pipeline.dataset import DataSetError
from pipeline.kafka.slices import LogRecord
from pipeline.kafka.topics import load_topics
from pipeline.model_control import parse
from pipeline.reading import read
from pipeline.refused_record import refused_record
from recommender import served
from recommender.model import artefact, promotions
from recommender.model.artefact import ModelRefused
from recommender.model.manifest import Golden, Manifest, Window

TOPICS = (*schema.INPUT_TOPICS,)
ACTIONS = (Action("view"), Action("buy", purchase=True), Action("hide", negative=True))
DOMAIN = Domain(actions=ACTIONS, attributes=(Attribute("price", "number"), Attribute("genre", "set")))
NOW_MS = 1_760_000_000_000
COLUMNS = 3


class Target(NamedTuple):
    """run: takes any bytes. seeds: sound inputs to begin with."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="headrace-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _split(raw: bytes) -> tuple[int, bytes]:
    """The first byte as a choice, and the rest."""
    return (raw[0], raw[1:]) if raw else (0, b"")


# --- from Kafka


def wire(raw: bytes) -> None:
    """A record of an input topic: refused by field and reason, or what is read comes back the same when written."""
    choice, raw = _split(raw)
    topic = TOPICS[choice % len(TOPICS)]
    try:
        record = schema.decode(topic, raw)
    except Refused as error:
        assert error.field, "a dead letter names a field"
        return
    assert schema.decode(topic, msgspec.json.encode(record)) == record


def log_record(raw: bytes) -> None:
    """A record with key and value as the worker reads it: one fact, whatever it is."""
    choice, raw = _split(raw)
    key, _, value = raw.partition(b"|")
    topic = TOPICS[choice % len(TOPICS)]
    record = LogRecord(7, NOW_MS, None if choice & 64 else key, None if choice & 128 else value)
    actions = {action.name: action for action in ACTIONS}
    found = read(topic, Part(topic, 0), [record], actions=actions, answer_from=0)
    assert [fact.offset for fact in found.facts] == [7]
    assert len(found.refused) == (found.facts[0].record is None)


class _Message:
    def __init__(self, raw: bytes) -> None:
        parts = raw.split(b"\n")
        self._headers = [
            (name.decode("utf-8", "replace"), value) for name, _, value in (p.partition(b"=") for p in parts)
        ]

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def offset(self) -> int:
        return 3

    def key(self) -> bytes | None:
        return None

    value = key


def dead_letter(raw: bytes) -> None:
    """A record of the dead letter topic, which others may write to: read whatever its headers say."""
    letter = refused_record(_Message(raw))  # type: ignore[arg-type]
    assert letter.source_partition >= 0
    assert letter.source_offset >= 0


def model_control(raw: bytes) -> None:
    """Which version serves: refused, or a name that is safe in a path."""
    key, _, value = raw.partition(b"|")
    try:
        _, version = parse(key, value)
    except Refused as error:
        assert error.field
        return
    assert version is None or artefact.VERSION.fullmatch(version)


def served_rows(raw: bytes) -> None:
    """Served rows: ValueError, or numbers of the shape that the record says."""
    try:
        unpacked = served.unpack(raw)
    except ValueError:
        return
    items = len(unpacked.served.item_ids)
    assert unpacked.rows.shape == (items, unpacked.served.columns)
    assert unpacked.scores.shape == (items,)


# --- from Redis


@lru_cache(maxsize=1)
def _layout() -> object:
    return MemoryStore().open(DOMAIN)


def users_log(raw: bytes) -> None:
    """A user's log: ValueError, or a log that folds and reads."""
    choice, raw = _split(raw)
    if choice & 1 and len(raw) > user_log.VERSION_BYTES:  # a damage that the checksum does not see
        raw = crc32(raw[user_log.VERSION_BYTES :]).to_bytes(4, "big") + raw[user_log.VERSION_BYTES :]
    layout = _layout()
    rules = rules_of(DOMAIN, layout)  # type: ignore[arg-type]
    action = schema.UserAction("e", "u", "i", "view", NOW_MS)
    part = Part("user_actions", 0)
    try:
        user_log.history(raw, now_ms=NOW_MS, domain=DOMAIN, layout=layout)  # type: ignore[arg-type]
        folded = fold(raw, [Fact(5, action)], part=part, mark=-1, rules=rules)
    except ValueError:
        return
    again = user_log.history(folded.blob, now_ms=NOW_MS, domain=DOMAIN, layout=layout)  # type: ignore[arg-type]
    assert len(again.ts_ms) <= user_log.ACTIONS_MAX


def tombstones(raw: bytes) -> None:
    """What is remembered of a forgotten user: ValueError, or one that can be packed again."""
    try:
        found = tombstone.unpack(raw)
    except ValueError:
        return
    assert tombstone.unpack(tombstone.pack(found)) == found


def ring(raw: bytes) -> None:
    """An item's ring: ValueError, or arrays of the right shape."""
    try:
        found = rings.unpack([raw], columns=COLUMNS)
    except ValueError:
        return
    assert found.counts.shape == (1, rings.SLOTS_ALL, COLUMNS)
    assert not raw or len(raw) == rings.ring_bytes(COLUMNS) + 2 + len((found.ids[0] or "").encode())


def record_of_item(raw: bytes) -> None:
    """An item's record: ValueError, or one that can be packed again."""
    try:
        found = item_record.unpack(raw)
    except ValueError:
        return
    assert isinstance(found.item_id, str)
    for value in found.attributes.values():
        item_record.texts(value)


def neighbour_lists(raw: bytes) -> None:
    """Session and co-visited lists: ValueError, or columns of one length."""
    choice, raw = _split(raw)
    try:
        if choice & 1:
            assert len({len(column) for column in neighbours.session_touches(raw)}) == 1
        else:
            _, items, weights = neighbours.co_visited(raw)
            assert len(items) == len(weights)
    except ValueError:
        return


# --- from files


def config(raw: bytes) -> None:
    """A worker.toml and, after a line of ---, HEADRACE_ variables: settings or a ConfigError of one line."""
    text, _, variables = raw.partition(b"\n---\n")
    path = _folder() / "worker.toml"
    path.write_bytes(text)
    pairs = (line.partition(b"=") for line in variables.split(b"\n") if line)
    environ = {name.decode("utf-8", "replace"): value.decode("utf-8", "surrogateescape") for name, _, value in pairs}
    try:
        settings = load(path, environ)
    except ConfigError as error:
        assert str(error)
        return
    assert settings.domain.columns


def topics_toml(raw: bytes) -> None:
    """A topics.toml: topics or a ConfigError."""
    path = _folder() / "topics.toml"
    path.write_bytes(raw)
    try:
        load_topics(path)
    except ConfigError as error:
        assert str(error)


def history_of_promotions(raw: bytes) -> None:
    """promotions.jsonl: what can be read of it, never an error."""
    path = _folder() / promotions.FILE
    path.write_bytes(raw)
    promotions.before(promotions.history(path.parent), "v1")


class Names(NamedTuple):
    """A catalogue for a model of four columns."""

    names: tuple[str, ...] = ("a", "b", "c", "d")
    fingerprint: str = "0123456789abcdef"
    categorical: tuple[int, ...] = (3,)


CATALOG = Names()


@lru_cache(maxsize=1)
def _model() -> tuple[bytes, bytes]:
    """A real model and its manifest."""
    import lightgbm

    random = np.random.default_rng(3)
    matrix = random.normal(size=(400, 4)).astype(np.float32)
    matrix[:, 3] = random.integers(0, 6, 400)
    grades = (matrix[:, 0] + (matrix[:, 3] == 2) > 0.5).astype(int)
    data = lightgbm.Dataset(
        matrix, grades, group=[10] * 40, feature_name=list(CATALOG.names), categorical_feature=[3],
        params={"verbosity": -1},
    )  # fmt: skip
    settings = {"objective": "lambdarank", "num_leaves": 7, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    text = lightgbm.train(settings, data, 6).model_to_string()
    booster = lightgbm.Booster(model_str=text)
    scores = booster.predict(matrix[:64], raw_score=True, num_threads=1)
    rows = b64encode(np.ascontiguousarray(matrix[:64], "<f4").tobytes()).decode()
    manifest = Manifest(
        version="v1", sha256=sha256(text.encode()).hexdigest(), lightgbm=lightgbm.__version__, objective="lambdarank",
        feature_names=list(CATALOG.names), features_hash=CATALOG.fingerprint, categorical=[3],
        num_trees=booster.num_trees(), num_leaves=7, window=Window(0, 1, 40),
        golden=Golden(rows, [float(score).hex() for score in scores]),
    )  # fmt: skip
    return text.encode(), msgspec.json.encode(manifest)


def manifest(raw: bytes) -> None:
    """A manifest beside a sound model: refused by reason, or one that is in order."""
    folder = _folder() / "v1"
    folder.mkdir(exist_ok=True)
    (folder / artefact.MODEL_FILE).write_bytes(_model()[0])
    (folder / artefact.MANIFEST_FILE).write_bytes(raw)
    try:
        artefact.inspect(folder, CATALOG)
    except ModelRefused as error:
        assert error.reason


def _signed(folder: Path, raw: bytes) -> None:
    """A damaged model with a manifest that vouches for it: the hash is no help against who can write both."""
    folder.mkdir(exist_ok=True)
    sound = json.loads(_model()[1])
    (folder / artefact.MODEL_FILE).write_bytes(raw)
    (folder / artefact.MANIFEST_FILE).write_bytes(json.dumps({**sound, "sha256": sha256(raw).hexdigest()}).encode())


def model_structure(raw: bytes) -> None:
    """A model file, before LightGBM sees it: refused by reason, or of a sound structure."""
    folder = _folder() / "v2"
    _signed(folder, raw)
    try:
        artefact.inspect(folder, CATALOG)
    except ModelRefused as error:
        assert error.reason


def model_load(raw: bytes) -> None:
    """A model file, all the way: refused, or its golden scores are equal and any row scores; this process lives."""
    folder = _folder() / "v3"
    _signed(folder, raw)
    try:
        ranker = artefact.load(folder, CATALOG)
    except ModelRefused as error:
        assert error.reason
        return
    rows = np.random.default_rng(len(raw)).normal(size=(500, 4)).astype(np.float32)
    rows[::3, 3] = np.arange(len(rows[::3]))
    rows[::7] = np.nan
    assert len(ranker.score(rows)) == len(rows)


def data_set(raw: bytes) -> None:
    """A file of a data set folder, plain or gzip: rows, or a DataSetError that names the file."""
    choice, raw = _split(raw)
    folder = _folder() / "set"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    topic = dataset.MERGE_ORDER[choice % 3]
    name = f"{topic}.jsonl.gz" if choice & 64 else f"{topic}.jsonl"
    (folder / name).write_bytes(gzip.compress(raw, 1) if choice & 128 else raw)
    for reader in (dataset.read, dataset.read_as_is, dataset.records):
        try:
            for _ in reader(folder):
                pass
        except DataSetError as error:
            assert name in str(error)


_MAPS = (
    (), ("user_id=u", "item_id=i"), ("attributes.price=p", "ts_ms=t", "action==view"), ("item_ids=i", "context.a=b"),
    ("value=p", "k=p"), ("available=a", "item_id=i", "attributes.x=u"),
)  # fmt: skip


def mapped(raw: bytes) -> None:
    """A foreign file with --map: rows of bytes, or one of the errors of one line."""
    choice, raw = _split(raw)
    suffix = (".jsonl", ".csv", ".tsv", ".csv.gz")[choice % 4]
    path = _folder() / f"foreign{suffix}"
    path.write_bytes(gzip.compress(raw, 1) if suffix.endswith("gz") else raw)
    topic = TOPICS[choice // 4 % len(TOPICS)]
    try:
        for row in publishing.rows(path, topic=topic, entries=_MAPS[choice // 16 % len(_MAPS)]):
            assert isinstance(row.raw, bytes)
            assert row.key is None or isinstance(row.key, bytes)
    except (ConfigError, DataSetError) as error:
        assert str(error)


def init(raw: bytes) -> None:
    """A sample for `init`: a DataSetError, or settings that load."""
    folder = _folder() / "sample"
    folder.mkdir(exist_ok=True)
    parts = raw.split(b"\n---\n")
    for topic, part in zip(dataset.MERGE_ORDER, [*parts, b"", b""], strict=False):
        (folder / f"{topic}.jsonl").write_bytes(part)
    try:
        text = initialise.initialise(folder)
    except DataSetError as error:
        assert str(error)
        return
    path = _folder() / "written.toml"
    path.write_text(text)
    assert load(path, {}).actions


# --- seeds


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


ACTION = _json(event_id="e1", user_id="u1", item_id="i1", action="view", ts_ms=NOW_MS, value=1.5, attributes={"a": "b"})
SHOWN = _json(impression_id="s1", user_id="u1", item_ids=["i1", "i2"], ts_ms=NOW_MS, item_context={"price": [1, None]})
ITEM = _json(item_id="i1", ts_ms=NOW_MS, available=True, attributes={"price": 2.5, "genre": ["x", "y"], "t": "z"})
ASKED = _json(request_id="r1", user_id="u1", ts_ms=NOW_MS, item_ids=["i1", "i2"], k=5, context={"device": "phone"})
RECORDS = (ACTION, SHOWN, ITEM, ASKED)


def _log_seed() -> bytes:
    log = user_log.Log()
    for n in range(5):
        log.actions += user_log.record(NOW_MS + n, hash64(f"i{n}"), user_log.event_bytes(f"e{n}"), n % 2, 1, n)
    user_log.buy(log.bought, NOW_MS, hash64("i1"))
    return user_log.pack(log)


def _ring_seed() -> bytes:
    return bytes(rings.add(bytearray(), COLUMNS, rings.delta(NOW_MS // 60_000, 1, 3), b"i1"))


def _served_seed() -> bytes:
    return msgspec.msgpack.encode(
        served.Served(
            served.FORMAT, "r", "u", NOW_MS, 5, False, "v1", "0123456789abcdef", 0, ["i1", "i2"], 1, 0.5,
            np.array([1.0, math.nan], "<f8").tobytes(), 2, np.zeros((2, 2), "<f4").tobytes(),
        )
    )  # fmt: skip


def _lists_seeds() -> tuple[bytes, ...]:
    sessions, listed = bytearray(), bytearray()
    neighbours.touch(sessions, neighbours.session_entry(NOW_MS, 1, 2))
    neighbours.follow(listed, neighbours.co_visit((7).to_bytes(8, "big"), NOW_MS // 60_000, 1.0))
    return b"\x01" + bytes(sessions), b"\x00" + bytes(listed)


def _settings() -> bytes:
    deploy = Path(__file__).resolve().parents[2] / "deploy"
    return (deploy / "worker.toml").read_bytes()


def _topics() -> bytes:
    return (Path(__file__).resolve().parents[2] / "deploy" / "topics.toml").read_bytes()


@lru_cache(maxsize=1)
def targets() -> dict[str, Target]:
    """All of them by name, but for those that start processes (`slow_targets`)."""
    promotion = _json(ts_ms=1, action="promote", version="v1") + b"\n" + _json(ts_ms=2, action="rollback", version="v0")
    environ = b'[worker]\nweb_port = 0\n---\nHEADRACE_KAFKA_GROUP=g\nHEADRACE_RECOMMEND_QUOTAS={"new": 0.5}'
    rows = b"\n".join([ACTION, ACTION.replace(b"e1", b"e2")])
    table = b"u,i,t,p,a,b\nu1,i1|i2,2020-01-01T00:00:00Z,1.5,true,x\nu2,i2,1577836800,nan,no,\n"
    return {
        "wire": Target(wire, tuple(bytes([n]) + raw for n, raw in enumerate(RECORDS))),
        "log-record": Target(log_record, (b"\x00u1|" + ACTION, b"\x81u1|", b"\x82i1|" + ITEM)),
        "dead-letter": Target(dead_letter, (b"reason=r\nfield=f\ntopic=t\npartition=1\noffset=2\nsha256=00",)),
        "model-control": Target(model_control, (b"ranker|" + _json(model="ranker", version="v1", ts_ms=5),)),
        "served-rows": Target(served_rows, (_served_seed(),)),
        "user-log": Target(users_log, (b"\x00" + _log_seed(), b"\x01" + _log_seed())),
        "tombstone": Target(tombstones, (tombstone.pack(tombstone.Tombstone(5)),)),
        "ring": Target(ring, (_ring_seed(),)),
        "item-record": Target(record_of_item, (item_record.pack(msgspec.json.decode(ITEM, type=schema.Item)),)),
        "neighbours": Target(neighbour_lists, _lists_seeds()),
        "config": Target(config, (environ, _settings())),
        "topics": Target(topics_toml, (_topics(),)),
        "promotions": Target(history_of_promotions, (promotion,)),
        "manifest": Target(manifest, (_model()[1],)),
        "model-structure": Target(model_structure, (_model()[0],)),
        "data-set": Target(data_set, (b"\x02" + rows, b"\xc2" + rows, b"\x00" + ITEM)),
        "mapped": Target(mapped, (b"\x11" + table, b"\x20" + ACTION, b"\x13" + table, b"\x50" + ITEM)),
        "init": Target(init, (b"\n---\n".join((ITEM, SHOWN, rows)),)),
    }


def slow_targets() -> dict[str, Target]:
    """Those that take half a second each: `make fuzz` only."""
    from tests.fuzz.commands import SEEDS, command_line

    return {"model-load": Target(model_load, (_model()[0],)), "command-line": Target(command_line, SEEDS)}
