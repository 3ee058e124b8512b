"""The values of one category or set attribute over the cached items: codes, sparse rows, document frequencies.

A value's code is the order in which this process met it: codes never leave the process, and no figure depends on
them. Frequencies are of the documents that `count` is told of, not of the rows. A vocabulary stops growing at 2^20 values; later ones are left out of their items' sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.affinity import inverse_document_frequency
from features.scene import Floats, SetColumn

VALUES_MAX = 1 << 20


class ValuePool:
    """Rows of value codes in one growing array; replaced rows leave holes, closed when they outweigh the rest."""

    def __init__(self, *, room: int = 1024) -> None:
        self.values: list[str] = []
        self._code_of: dict[str, int] = {}
        self._codes = np.empty(room, np.int64)
        self._used = 0
        self._start = np.zeros(0, np.int64)
        self._size = np.zeros(0, np.int64)
        self._frequencies = np.zeros(room, np.int64)
        self._idf: Floats | None = None
        self._idf_documents = 0

    def grow(self, rows: int) -> None:
        """Makes room for `rows` rows."""
        more = rows - len(self._start)
        self._start = np.concatenate([self._start, np.zeros(more, np.int64)])
        self._size = np.concatenate([self._size, np.zeros(more, np.int64)])

    def put(self, row: int, values: Sequence[str]) -> None:
        """Replaces the values of a row; they are distinct."""
        codes = [code for value in values if (code := self._code(value)) >= 0]
        if self._used + len(codes) > len(self._codes):
            self._close_holes(len(codes))
        self._codes[self._used : self._used + len(codes)] = codes
        self._start[row], self._size[row] = self._used, len(codes)
        self._used += len(codes)

    def count(self, values: Sequence[str], *, documents: int) -> None:
        """Adds (1) or takes away (-1) a document with these values; they are distinct."""
        codes = [code for value in values if (code := self._code(value)) >= 0]
        self._frequencies[codes] += documents
        self._idf = None

    def column(self, rows: NDArray[np.intp]) -> SetColumn:
        """The values of these rows, in each record's own order."""
        sizes = self._size.take(rows)
        start = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=start[1:])
        at = np.arange(start[-1]) + np.repeat(self._start.take(rows) - start[:-1], sizes)
        return SetColumn(start, self._codes.take(at))

    def idf(self, *, documents: int) -> Floats:
        """float32[codes]: inverse document frequencies, where `documents` were counted in all."""
        if self._idf is None or self._idf_documents != documents:
            # of all the room: what is met later has the value of one that no document has
            self._idf = inverse_document_frequency(self._frequencies, documents=documents)
            self._idf_documents = documents
        return self._idf[: len(self.values)]

    def _code(self, value: str) -> int:
        code = self._code_of.get(value, -1)
        if code < 0 and len(self.values) < VALUES_MAX:
            code = self._code_of[value] = len(self.values)
            self.values.append(value)
            if code >= len(self._frequencies):
                self._frequencies = np.concatenate([self._frequencies, np.zeros_like(self._frequencies)])
                self._idf = None
        return code

    def _close_holes(self, more: int) -> None:
        """Moves the rows together; doubles the array unless half of it came free."""
        rows = np.flatnonzero(self._size)
        kept = self.column(rows)
        room = len(self._codes)
        while room < 2 * (len(kept.codes) + more):
            room *= 2
        self._codes = np.empty(room, np.int64)
        self._codes[: len(kept.codes)] = kept.codes
        self._start[rows] = kept.start[:-1]
        self._used = len(kept.codes)
