"""A data set folder as a run's traffic: its rows in the order of their time, as `headrace publish` sends them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from msgspec import structs

from pipeline.config import Settings
from pipeline.dataset import DataSetError
from pipeline.offline import MEANING, settings_for
from pipeline.publishing import rows
from tests.chaos.scenarios import Scenario
from tests.chaos.traffic import Post


@dataclass(frozen=True, slots=True)
class DataSet:
    """The first `events` rows of a folder. The seed has a say in the faults alone."""

    folder: Path
    events: int
    meant: Settings

    @classmethod
    def of(cls, folder: Path, *, events_max: int) -> DataSet:
        """Counts the rows. Raises `ConfigError` or `DataSetError` for what is no data set, or asks for no answer."""
        events = sum(1 for _ in islice(rows(folder, topic=None, entries=()), events_max))
        meant = settings_for(folder, Settings())
        if not any(action.trigger for action in meant.actions):
            raise DataSetError(f"{folder}: no action that asks for an answer")
        return cls(folder, events, meant)

    def records(self) -> Iterator[Post]:
        """The posts, in order."""
        for row in islice(rows(self.folder, topic=None, entries=()), self.events):
            yield Post(row.topic, row.key, row.raw)

    def under(self, scenario: Scenario) -> Scenario:
        """The scenario with workers that know what the folder's events mean."""
        setup = scenario.setup
        return replace(scenario, setup=replace(setup, settings=lambda own: setup.settings(self._meant(own))))

    def _meant(self, settings: Settings) -> Settings:
        meaning = {name: getattr(self.meant, name) for name in MEANING}
        return structs.replace(settings, **meaning)
