"""Which model serves: the version that the operator names, once it has passed every check; a second one as shadow.

A version that is refused, or is not there, never unseats the one that serves. The swap is one reference: who took the
ranker before goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from recommender.model.artefact import VERSION, ModelRefused, check_version
from recommender.model.manifest import MANIFEST_FILE, MODEL_FILE
from recommender.ranker import Ranker

LOADED_MAX = 3  # the serving one, the one before it (a rollback then takes no load), the shadow
LOOKS = (
    300  # after so many looks (5 minutes of a worker's) a refused one is tried again: a machine that had no memory or
)
# no time for the probe says nothing about the model
NO_MODEL = "no model"

Mark = tuple[tuple[int, int, int] | None, ...]


def versions(directory: Path) -> list[str]:
    """The version names below `directory`, newest first: names sort by time, drafts (leading dot) are not versions."""
    if not directory.is_dir():
        return []
    return sorted((p.name for p in directory.iterdir() if VERSION.fullmatch(p.name) and p.is_dir()), reverse=True)


def open_version(directory: Path, version: str, open_model: Callable[[Path], Ranker]) -> Ranker:
    """The ranker in `directory/version`. Raises `ModelRefused`, whatever is wrong with what lies there."""
    check_version(version)
    try:
        ranker = open_model(directory / version)
    except ModelRefused:
        raise
    except Exception as error:  # hostile files find errors that nobody thought of; the serving model lives on
        raise ModelRefused(f"{type(error).__name__}: {error}") from error
    if ranker.version != version:
        raise ModelRefused(f"its manifest calls it {ranker.version!r}")
    return ranker


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """What the operator last named. Naming the same version again is another wish: what was refused is tried again."""

    version: str | None


@dataclass(slots=True)
class Seat:
    """One place for a ranker: what is wished, what sits there, why they differ, and how many were refused so far."""

    empty: str
    wish: Wish
    cause: str | None
    ranker: Ranker | None = None
    refused: int = 0
    tried: tuple[Wish, Mark] | None = None
    looks: int = 0  # since it was tried

    @property
    def version(self) -> str | None:
        """The version that sits there."""
        return self.ranker.version if self.ranker is not None else None


@dataclass(slots=True)
class Registry:
    """Owns the rankers below `directory` (`<models>/<name>`).

    open_model: usually `artefact.load` with the catalogue and the budget bound in. `want` and `want_shadow` say what
    should serve, `refresh` sees to it (one thread, not the hot path), `current` and `shadow` are plain reads.
    """

    directory: Path
    open_model: Callable[[Path], Ranker]
    serving: Seat = field(default_factory=lambda: Seat(NO_MODEL, Wish(None), NO_MODEL))
    shadowing: Seat = field(default_factory=lambda: Seat("", Wish(None), None))
    _loaded: dict[str, tuple[Mark, Ranker]] = field(default_factory=dict)

    @property
    def cause(self) -> str | None:
        """Why no ranker serves, or not the one that was named; None when all is well."""
        return self.serving.cause

    def want(self, version: str | None) -> None:
        """`version` shall serve; None: no model. Raises `ModelRefused` for a name that is none."""
        self.serving.wish = _wish(version)

    def want_shadow(self, version: str | None) -> None:
        """`version` shall be the shadow; None: no shadow. Raises `ModelRefused` for a name that is none."""
        self.shadowing.wish = _wish(version)

    def current(self) -> Ranker | None:
        """The serving ranker, None before the first good one."""
        return self.serving.ranker

    def shadow(self) -> Ranker | None:
        """The ranker that scores without being shown."""
        return self.shadowing.ranker

    def refresh(self) -> bool:
        """Loads what is wanted and not there yet; True when another ranker sits on a seat now.

        What is absent is looked for at every call; what is refused is tried again when its files changed, when it is
        named anew, and after `LOOKS` calls.
        """
        changed = [self._settle(seat) for seat in (self.serving, self.shadowing)]
        return any(changed)

    def _settle(self, seat: Seat) -> bool:
        wish, before = seat.wish, seat.ranker
        if wish.version is None:
            seat.ranker, seat.cause = None, seat.empty or None
            return before is not None
        if seat.version == wish.version:
            seat.cause = None
            return False
        mark = _mark(self.directory / wish.version)
        if not any(mark):
            seat.cause = f"model {wish.version} is not in {self.directory}"
            return False
        seat.looks += 1
        if seat.tried == (wish, mark) and seat.looks < LOOKS:
            return False
        seat.looks = 0
        try:
            seat.ranker = self._opened(wish.version, mark)
        except ModelRefused as refusal:
            seat.tried, seat.refused = (wish, mark), seat.refused + 1
            seat.cause = f"model refused: {wish.version}: {refusal.reason}"
            return False
        seat.cause = None
        return True

    def _opened(self, version: str, mark: Mark) -> Ranker:
        """The ranker, again without a load while its files are as they were."""
        known = self._loaded.pop(version, None)
        ranker = known[1] if known and known[0] == mark else open_version(self.directory, version, self.open_model)
        self._loaded[version] = (mark, ranker)
        for oldest in list(self._loaded)[:-LOADED_MAX]:
            del self._loaded[oldest]
        return ranker


def _wish(version: str | None) -> Wish:
    if version is not None:
        check_version(version)
    return Wish(version)


def _mark(path: Path) -> Mark:
    """What tells that a version's files changed; Nones where nothing is."""
    return tuple(_stat(each) for each in (path, path / MANIFEST_FILE, path / MODEL_FILE))


def _stat(path: Path) -> tuple[int, int, int] | None:
    found = None
    for look in (path.stat, path.lstat):  # a link that leads nowhere is something, too
        with suppress(OSError):
            found = look()
            break
    return found and (found.st_ino, found.st_size, found.st_mtime_ns)
