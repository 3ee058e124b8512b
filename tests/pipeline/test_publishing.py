import gzip
import io
import json
import time
from pathlib import Path

import pytest

from pipeline.config import ConfigError
from pipeline.dataset import DataSetError
from pipeline.publishing import STDIN, Pace, rows


def test_a_file_goes_to_the_topic_of_its_name(tmp_path):
    path = tmp_path / "impressions.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"user_id":"u","ts_ms":3}\n'))
    assert list(rows(path, topic=None, entries=())) == [
        ("impressions.jsonl.gz", "impressions", b"u", b'{"user_id":"u","ts_ms":3}', 3)
    ]


def test_stdin_goes_to_user_actions_or_where_it_is_told(monkeypatch):
    for topic, expected in ((None, "user_actions"), ("items", "items")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"user_id":"u"}\n')))
        assert next(rows(STDIN, topic=topic, entries=())).topic == expected


def test_a_folder_takes_no_mapping(tmp_path):
    (tmp_path / "items.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="single files"):
        list(rows(tmp_path, topic=None, entries=("item_id=x",)))


def test_a_csv_of_wrong_columns_is_a_configuration_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n")
    with pytest.raises(ConfigError, match="no column visitor"):
        list(rows(path, topic=None, entries=("user_id=visitor",)))


def test_a_csv_that_breaks_off_is_named_with_its_last_good_line(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"item_id\n" + b"i\n" * 100)[:-6])
    with pytest.raises(DataSetError, match=r"a\.csv\.gz: after line \d+: "):
        list(rows(path, topic=None, entries=()))


def test_a_csv_cell_has_the_bound_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("item_id\n" + "x" * 200_000 + "\n")
    assert len(list(rows(path, topic="items", entries=()))) == 1
    monkeypatch.setattr("pipeline.mapping.LINE_BYTES_MAX", 100_000)
    with pytest.raises(DataSetError, match=r"a\.csv: after line 1: a row of more than 100000"):
        list(rows(path, topic="items", entries=()))


def test_rows_of_two_files_of_one_name_are_different_events(tmp_path):
    ids = set()
    for month in ("jan", "feb"):
        path = tmp_path / month / "clicks.csv"
        path.parent.mkdir()
        path.write_text("user_id\nu\n")
        [first], [again] = (list(rows(path, topic=None, entries=())) for _ in range(2))
        assert first.raw == again.raw
        ids.add(json.loads(first.raw)["event_id"])
    assert len(ids) == 2


def test_rows_keep_a_rate():
    pace = Pace(rate=10, speedup=None)
    assert pace.wait_s(1) == 0
    assert pace.wait_s(1) == pytest.approx(0.1, abs=0.05)
    assert pace.wait_s(1) == pytest.approx(0.2, abs=0.05)


def test_rows_keep_their_event_time_divided():
    pace = Pace(rate=None, speedup=10)
    assert pace.wait_s(0) == 0
    assert pace.wait_s(50_000) == 0
    assert pace.wait_s(60_000) == pytest.approx(1.0, abs=0.05)


def test_without_a_pace_every_row_is_due_at_once():
    pace = Pace(rate=None, speedup=None)
    begun_s = time.monotonic()
    assert all(pace.wait_s(n * 1000) == 0 for n in range(100))
    assert time.monotonic() - begun_s < 1


def test_a_plain_row_is_never_changed(tmp_path):
    raw = json.dumps({"user_id": "u", "odd": [1, {"a": None}], "ts_ms": "later"}).encode()
    path = Path(tmp_path / "user_actions.jsonl")
    path.write_bytes(raw + b"\n{cut\n")
    assert [row.raw for row in rows(path, topic=None, entries=())] == [raw, b"{cut"]
