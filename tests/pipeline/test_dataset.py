import gzip
import json
import os

import pytest

from features.schema import Impression, Item, UserAction
from pipeline.dataset import DataSetError, Writer, files, lines, read, read_as_is, records, write


def line(**fields):
    return json.dumps(fields).encode() + b"\n"


def action(event_id, ts_ms):
    return line(event_id=event_id, user_id="u", item_id="i", action="view", ts_ms=ts_ms)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "user_actions.jsonl").write_bytes(action("e1", 5) + action("e2", 10) + action("e3", 20))
    shown = line(impression_id="s", user_id="u", item_ids=["i"], ts_ms=10)
    (tmp_path / "impressions.jsonl.gz").write_bytes(gzip.compress(shown))
    (tmp_path / "items.jsonl").write_bytes(line(item_id="i", ts_ms=10))
    return tmp_path


def test_rows_come_in_time_order_with_items_before_impressions_before_actions(folder):
    assert [(row.topic, row.ts_ms) for row in read(folder)] == [
        ("user_actions", 5),
        ("items", 10),
        ("impressions", 10),
        ("user_actions", 10),
        ("user_actions", 20),
    ]


def test_records_are_decoded(folder):
    assert [type(record) for record in records(folder)] == [UserAction, Item, Impression, UserAction, UserAction]


def test_what_is_written_is_read_back(folder, tmp_path):
    rows = [(row.topic, row.raw) for row in read(folder)]
    assert write(tmp_path / "copy", rows) == {"user_actions": 3, "items": 1, "impressions": 1}
    assert list(read(tmp_path / "copy")) == list(read(folder))


def test_a_folder_is_never_written_over(folder):
    with pytest.raises(DataSetError, match="already holds a data set"):
        Writer(folder)


def test_a_broken_line_is_named_by_file_and_line(folder):
    (folder / "user_actions.jsonl").write_bytes(action("e1", 5) + b"{cut\n")
    with pytest.raises(DataSetError, match=r"user_actions\.jsonl:2: "):
        list(read(folder))


def test_a_record_that_breaks_the_contract_is_named_with_its_field(folder):
    (folder / "items.jsonl").write_bytes(line(item_id=7, ts_ms=10))
    with pytest.raises(DataSetError, match=r"items\.jsonl:1: item_id: "):
        list(records(folder))


def test_refused_lines_can_be_counted_instead(folder):
    (folder / "items.jsonl").write_bytes(line(item_id=7, ts_ms=10) + b"junk\n")
    seen = []
    kept = list(records(folder, refused=lambda where, error: seen.append((where.rpartition("/")[2], error.field))))
    assert len(kept) == 4
    assert seen == [("items.jsonl:1", "item_id"), ("items.jsonl:2", "$")]


def test_broken_lines_pass_as_they_are_in_their_place(folder):
    (folder / "user_actions.jsonl").write_bytes(action("e1", 5) + b"{cut\n" + action("e3", 20))
    assert [row.raw for row in read_as_is(folder) if row.topic == "user_actions"][1] == b"{cut"


def test_a_row_out_of_order_keeps_its_place_in_its_file(folder):
    (folder / "user_actions.jsonl").write_bytes(action("e1", 50) + action("e2", 4))
    assert [row.ts_ms for row in read(folder)] == [10, 10, 50, 4]


def test_a_cut_gzip_file_is_named(folder):
    path = folder / "impressions.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DataSetError, match=r"impressions\.jsonl\.gz: after line [01]: "):
        list(read(folder))


@pytest.mark.parametrize("spoil", [lambda raw: raw[: len(raw) * 2 // 3], lambda raw: raw[:-9000] + b"x" * 9000])
def test_a_file_that_breaks_off_names_its_last_good_line(tmp_path, spoil):
    rows = b"".join(action(os.urandom(8).hex(), n) for n in range(50_000))
    (tmp_path / "user_actions.jsonl.gz").write_bytes(spoil(gzip.compress(rows)))
    good = []
    with pytest.raises(DataSetError) as raised:
        good.extend(number for number, _ in lines(tmp_path / "user_actions.jsonl.gz"))
    assert len(good) > 20_000
    assert f"user_actions.jsonl.gz: after line {good[-1]}: " in str(raised.value)


def test_a_line_has_a_bound(folder, monkeypatch):
    monkeypatch.setattr("pipeline.dataset.LINE_BYTES_MAX", 100)
    (folder / "items.jsonl").write_bytes(line(item_id="x" * 200, ts_ms=1))
    with pytest.raises(DataSetError, match=r"items\.jsonl:1: a line of more than 100 bytes"):
        list(read(folder))


def test_no_folder_no_files_and_twice_the_same_topic_are_errors(folder, tmp_path):
    with pytest.raises(DataSetError, match="no such folder"):
        files(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataSetError, match="none of items"):
        files(tmp_path / "empty")
    (folder / "items.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataSetError, match="which one"):
        files(folder)
