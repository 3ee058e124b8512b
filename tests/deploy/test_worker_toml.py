"""The commented configuration file is the manual: complete, and true about the defaults."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from features.domain import Action, Attribute, Context
from pipeline.config import Settings, load

TEXT = Path("deploy/worker.toml").read_text()
SHOWN = tomllib.loads(TEXT)
DEFAULTS = msgspec.json.decode(msgspec.json.encode(Settings()))
TABLES = {"actions": Action, "attributes": Attribute, "context": Context}


def test_it_loads_as_the_defaults():
    assert load(Path("deploy/worker.toml"), {}) == Settings()


@pytest.mark.parametrize("key", sorted(set(DEFAULTS) - set(TABLES)))
def test_every_setting_is_shown_with_its_default(key):
    assert SHOWN[key] == DEFAULTS[key]


@pytest.mark.parametrize("table", TABLES)
def test_every_key_of_an_example_table_is_shown_and_loads(table):
    block = re.search(rf"^# \[\[{table}\]\]\n(?:# .*\n)+", TEXT, re.MULTILINE)
    example = tomllib.loads(re.sub(r"^# ", "", block[0], flags=re.MULTILINE))[table][0]
    assert set(example) == set(TABLES[table].__struct_fields__)
    shown = msgspec.convert(example, TABLES[table])
    required = {field: getattr(shown, field) for field in ("name", "kind") if field in example}
    assert shown == TABLES[table](**required)
