"""Document frequencies of attribute values, counted over the state's sample of items.

The store keeps the 64 items of greatest hash of each shard that ever had a record: a bottom-k sample (Cohen and Kaplan,
PODC 2007), which depends on the set of items alone, not on their order, and costs a reader 1 024 records however large
the catalogue is. So two processes with one state agree to the bit, whatever they were asked. Exact up to about 700
items; beyond, a value that a share p of all items have is counted with a standard deviation of sqrt(p (1 - p) / 1 024).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from features import item_record
from features.fresh import FreshCache, Tick
from features.scene import Floats
from features.store.port import FeatureStore
from features.value_pool import ValuePool


class DocumentSample:
    """Keeps the frequencies in `pools` {attribute: pool} equal to the sample. One per view; not for use by two threads."""

    def __init__(self, store: FeatureStore, pools: Mapping[str, ValuePool], *, freshness_ms: int) -> None:
        self._store = store
        self._pools = pools
        self._read = FreshCache[str, list[bytes]](size_max=1, freshness_ms=freshness_ms)
        self._counted: list[bytes] = []
        self._documents = 0

    def idf(self, attribute: str, *, tick: Tick) -> Floats:
        """float32[codes]: inverse document frequencies of the values of a category or set attribute."""
        (records,) = self._read.get(["sample"], lambda _: [self._store.read_sample()], tick=tick)
        if records is not self._counted and records != self._counted:
            before, now = set(self._counted), set(records)
            self._count(before - now, -1)
            self._count(now - before, 1)
        self._counted = records
        return self._pools[attribute].idf(documents=self._documents)

    def _count(self, records: Iterable[bytes], documents: int) -> None:
        """Records name their item, so no two are equal. What is gone is a member of the sample, but no document."""
        for blob in records:
            record = item_record.unpack(blob)
            self._documents += 0 if record.gone else documents
            for name, pool in self._pools.items():
                pool.count(item_record.texts(record.attributes.get(name)), documents=documents)
