"""The demo's worker.toml: what is written is what is read back, on the embedded servers."""

from pathlib import Path

import pytest

from features.domain import Action, Attribute
from pipeline.config import Settings, load
from pipeline.demo.settings import SHOP, placed, toml
from pipeline.initialise import settings_of

STRANGE = Settings(
    actions=(Action('a "quoted" \\ näme \x7f 🛒', weight=0.5, purchase=True),),
    attributes=(Attribute("tags", "set", candidates=True),),
    item_context=("price", "dis tance"),
)


@pytest.mark.parametrize("settings", [Settings(), STRANGE, settings_of(SHOP)])
def test_settings_survive_the_file(tmp_path, settings):
    path = tmp_path / "worker.toml"
    path.write_text(toml(settings))
    assert load(path, {}) == settings


def test_the_worker_is_placed_on_the_embedded_servers_and_the_meaning_stays():
    settings = placed(
        settings_of(SHOP),
        bootstrap="127.0.0.1:1",
        redis_url="unix:///x y",
        models=Path("m"),
        data_dir=Path("v"),
        metrics_port=7,
    )
    assert (settings.kafka.bootstrap, settings.redis.url) == ("127.0.0.1:1", "unix:///x y")
    assert (settings.model.directory, settings.worker.metrics_port) == ("m", 7)
    assert settings.domain == settings_of(SHOP).domain
    assert settings.recommend == settings_of(SHOP).recommend
