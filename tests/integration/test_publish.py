"""`headrace publish`, `topics` and `tail` against the embedded broker."""

import gzip
import json
import re
import uuid

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from pipeline.cli import main
from pipeline.config import ConfigError, Kafka
from pipeline.kafka.delivery import Delivery
from pipeline.kafka.reading import Reader

pytestmark = pytest.mark.services


@pytest.fixture
def run(broker):
    """The command line on topics of this test's own."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    environ = {"HEADRACE_KAFKA_BOOTSTRAP": broker, "HEADRACE_KAFKA_TOPIC_PREFIX": prefix}

    def invoke(*args, **kwargs):
        return CliRunner().invoke(main, [str(arg) for arg in args], env=environ, **kwargs)

    invoke.settings = Kafka(bootstrap=broker, topic_prefix=prefix)
    assert invoke("topics", "create").exit_code == 0
    return invoke


def held(run, topic):
    with Reader(run.settings) as reader:
        return [(message.key(), message.value()) for message in reader.existing(run.settings.topic_prefix + topic)]


def action(n, **fields):
    return {"event_id": f"e{n}", "user_id": f"u{n % 3}", "item_id": "i", "action": "view", "ts_ms": n} | fields


def test_a_folder_goes_out_whole_and_the_report_counts_what_was_delivered(run, tmp_path):
    rows = [json.dumps(action(n)).encode() for n in range(50)]
    (tmp_path / "user_actions.jsonl.gz").write_bytes(gzip.compress(b"\n".join(rows)))
    (tmp_path / "items.jsonl").write_text('{"item_id":"i","ts_ms":0}\n')
    result = run("publish", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["rows"], report["delivered"], report["failed"]) == (51, 51, 0)
    assert report["files"]["user_actions.jsonl.gz"]["delivered"] == 50
    assert sorted(value for _, value in held(run, "user_actions")) == sorted(rows)
    assert held(run, "items") == [(b"i", b'{"item_id":"i","ts_ms":0}')]


def test_broken_lines_from_stdin_go_out_as_they_are(run):
    lines = [b"{cut", json.dumps(action(1)).encode(), b"[]"]
    result = run("publish", "-", input=b"\n".join(lines))
    assert result.exit_code == 0, result.output
    assert "stdin: 3 of 3 rows delivered" in result.stdout
    assert sorted(held(run, "user_actions"), key=str) == sorted(
        [(None, b"{cut"), (b"u1", lines[1]), (None, b"[]")], key=str
    )


def test_a_csv_file_is_mapped(run, tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text("visitor,thing,when,amount\nv1,a,2020-01-01T00:00:00Z,3.5\n")
    fields = ("user_id=visitor", "item_id=thing", "ts_ms=when", "value=amount", "action==buy")
    result = run("publish", path, *(part for field in fields for part in ("--map", field)))
    assert result.exit_code == 0, result.output
    [(key, value)] = held(run, "user_actions")
    assert key == b"v1"
    record = json.loads(value)
    assert re.fullmatch(r"clicks\.csv-[0-9a-f]{16}:2", record.pop("event_id"))
    assert record == {
        "user_id": "v1",
        "item_id": "a",
        "action": "buy",
        "ts_ms": 1_577_836_800_000,
        "value": 3.5,
    }


def test_a_row_over_the_limit_is_reported_as_not_delivered(run, tmp_path, monkeypatch):
    path = tmp_path / "user_actions.jsonl"
    path.write_text(json.dumps(action(1)) + "\n" + "x" * 100_000 + "\n")
    result = run("publish", path, "--json", catch_exceptions=False)
    assert json.loads(result.stdout)["delivered"] == 2
    monkeypatch.setenv("HEADRACE_KAFKA_MESSAGE_MAX_BYTES", "20000")
    result = run("publish", path, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (report["delivered"], report["failed"]) == (1, 1)
    assert report["files"]["user_actions.jsonl"]["reasons"]


@pytest.mark.parametrize("words", [["publish", "-"], ["forget", "u1"]], ids=lambda words: words[0])
def test_missing_topics_are_named_not_created(run, monkeypatch, words):
    monkeypatch.setenv("HEADRACE_KAFKA_TOPIC_PREFIX", "absent.")
    result = CliRunner().invoke(
        main,
        words,
        input=b"x",
        env={"HEADRACE_KAFKA_BOOTSTRAP": run.settings.bootstrap, "HEADRACE_KAFKA_TOPIC_PREFIX": "absent."},
    )
    assert result.exit_code == 2
    assert "absent.user_actions" in result.stderr
    assert "headrace topics create" in result.stderr


def test_a_producer_of_ours_makes_no_topic(run):
    settings = replace(run.settings, delivery_timeout_ms=2_000)
    with Delivery(settings) as delivery:
        delivery.send("file", run.settings.topic_prefix + "mistyped", key=b"k", value=b"v")
        delivery.flush()
    assert (delivery.delivered, delivery.failed) == (0, 1)
    with Reader(run.settings) as reader, pytest.raises(ConfigError, match="no such topic"):
        reader.ranges(run.settings.topic_prefix + "mistyped")


def test_tail_shows_recommendations_of_one_user(run, tmp_path):
    path = tmp_path / "recommendations.jsonl"
    answer = {
        "rec_id": "r",
        "user_id": "u1",
        "ts_ms": 1,
        "items": [{"item_id": "a", "score": 0.5, "source": "trending"}],
        "model": {"version": "none", "features_hash": "x"},
        "level": "partial",
        "cause": "no model",
        "event_age_ms": 0,
        "latency_ms": 1.5,
    }
    with Delivery(run.settings) as delivery:
        for user in ("u1", "u2", "u1"):
            raw = json.dumps(answer | {"user_id": user}).encode()
            delivery.send(path.name, run.settings.topic_prefix + "recommendations", key=user.encode(), value=raw)
    result = run("tail", "--from-start", "--user", "u1", "--timeout", "5", "--limit", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("u1  partial (no model)  1.5 ms  a 0.500 trending") == 2
    result = run("tail", "--from-start", "--json", "--timeout", "5", "--limit", "3")
    assert [json.loads(line)["rec_id"] for line in result.stdout.splitlines()] == ["r"] * 3
