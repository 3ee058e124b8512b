"""`headrace dead-letters` against the embedded broker, with letters as the worker writes them."""

import json
import uuid

import pytest
from click.testing import CliRunner

from features.schema import Refused
from features.store.port import Part
from pipeline.cli import main
from pipeline.config import Kafka
from pipeline.kafka.dead_letters import dead_letter
from pipeline.kafka.delivery import Delivery
from pipeline.kafka.reading import Reader
from pipeline.kafka.slices import LogRecord

pytestmark = pytest.mark.services
MONSTER = b"{" + b"x" * 1_000_000


def record(offset, value):

    return LogRecord(offset=offset, timestamp=0, key=b"k", value=value)


@pytest.fixture
def run(broker):
    """The command line, with two refused records in `user_actions` and their dead letters."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    environ = {"HEADRACE_KAFKA_BOOTSTRAP": broker, "HEADRACE_KAFKA_TOPIC_PREFIX": prefix}

    def invoke(*args):
        return CliRunner().invoke(main, list(args), env=environ)

    assert invoke("topics", "create").exit_code == 0
    invoke.settings = Kafka(bootstrap=broker, topic_prefix=prefix)
    source = Part(f"{prefix}user_actions", 0)
    refusals = {b"{cut": Refused("$", "malformed"), MONSTER: Refused("user_id", "missing")}
    with Delivery(invoke.settings) as delivery:
        for value in refusals:
            delivery.send("source", source.topic, key=b"k", value=value)
        delivery.flush()
    with Reader(invoke.settings) as reader:
        held = {m.value(): (m.partition(), m.offset()) for m in reader.existing(source.topic)}
    with Delivery(invoke.settings) as delivery:
        for value, refused in refusals.items():
            partition, offset = held[value]
            letter = dead_letter(f"{prefix}dead_letters", Part(source.topic, partition), record(offset, value), refused)
            delivery.send("dead", letter.topic, key=letter.key, value=letter.value, headers=letter.headers)
    return invoke


def test_they_are_listed_with_field_and_reason(run):
    result = run("dead-letters", "list")
    assert result.exit_code == 0, result.output
    assert "$: malformed  {cut" in result.stdout
    assert "2 dead letters" in result.stdout


def test_the_list_can_be_narrowed_and_read_by_programs(run):
    result = run("dead-letters", "list", "--reason", "user_id", "--json")
    [letter] = [json.loads(line) for line in result.stdout.splitlines()]
    assert (letter["field"], letter["reason"], len(letter["value"])) == ("user_id", "missing", 65536)


def test_they_are_sent_again_whole_even_when_the_letter_holds_only_the_head(run):
    result = run("dead-letters", "replay", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"chosen": 2, "delivered": 2, "failed": 0, "lost": 0}
    with Reader(run.settings) as reader:
        values = [m.value() for m in reader.existing(f"{run.settings.topic_prefix}user_actions")]
    assert sorted(values) == sorted([b"{cut", MONSTER] * 2)


def test_what_is_refused_again_while_they_are_sent_is_not_sent_again(run, monkeypatch):
    monkeypatch.setattr("pipeline.cli.dead_letters._ends", lambda *_: {0: -1})
    result = run("dead-letters", "replay", "--json")
    assert json.loads(result.stdout)["chosen"] == 0
