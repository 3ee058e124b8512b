"""Which model serves: the newest good version below `directory/name/`. A refused one never unseats a good one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recommender.model.artefact import ModelRefused
from recommender.ranker import Ranker

VERSIONS_TRIED_MAX = 5


def versions(directory: Path) -> list[str]:
    """The version names below `directory`, newest first: names sort by time, drafts (leading dot) are not versions."""
    if not directory.is_dir():
        return []
    return sorted((p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith(".")), reverse=True)


@dataclass(slots=True)
class Registry:
    """Owns the serving ranker. `refresh` looks at the disk, `current` is a plain read for the hot path.

    directory: `<models>/<name>`. open_model: usually `artefact.load` with the catalogue and the budget bound in.
    cause: why there is no ranker, or why the newest version is not the one that serves; None when all is well.
    """

    directory: Path
    open_model: Callable[[Path], Ranker]
    cause: str | None = "no model"
    _ranker: Ranker | None = None
    _serving: str = ""
    _refused: dict[str, tuple[int, str]] = field(default_factory=dict)

    def current(self) -> Ranker | None:
        """The serving ranker, None before the first good one."""
        return self._ranker

    def refresh(self) -> bool:
        """Looks for a newer good version; True when another ranker serves now. A version is tried once per content."""
        first_refusal = None
        for version in versions(self.directory)[:VERSIONS_TRIED_MAX]:
            if version == self._serving:
                self.cause = first_refusal
                return False
            refusal = self._try(version)
            if refusal is None:
                self.cause = first_refusal
                return True
            first_refusal = first_refusal or f"model refused: {version}: {refusal}"
        self.cause = first_refusal or (None if self._ranker else "no model")
        return False

    def _try(self, version: str) -> str | None:
        """The reason why a version is refused, None when it serves from now on."""
        path = self.directory / version
        mark = _changed_ns(path)
        known = self._refused.get(version)
        if known and known[0] == mark:
            return known[1]
        try:
            self._ranker = self.open_model(path)
        except ModelRefused as refusal:
            self._refused = {**dict(list(self._refused.items())[-VERSIONS_TRIED_MAX:]), version: (mark, refusal.reason)}
            return refusal.reason
        self._serving = version
        return None


def _changed_ns(path: Path) -> int:
    """When the version's files last changed, so that a mended one is tried again."""
    return max((f.stat().st_mtime_ns for f in [path, *path.glob("*")] if f.exists()), default=0)
