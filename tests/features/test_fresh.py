from features.fresh import FreshCache, Tick


class Source:
    """Answers with how often it was asked, and remembers for what."""

    def __init__(self):
        self.asked = []

    def __call__(self, keys):
        self.asked.append(list(keys))
        return [len(self.asked)] * len(keys)


def test_within_a_micro_batch_a_key_is_read_once():
    cache, source = FreshCache(size_max=9, freshness_ms=0), Source()
    assert cache.get(["a", "b", "a"], source, tick=Tick(1, 0)) == [1, 1, 1]
    assert cache.get(["b"], source, tick=Tick(1, 0)) == [1]
    assert source.asked == [["a", "b"]]


def test_with_freshness_0_the_next_micro_batch_reads_again():
    cache, source = FreshCache(size_max=9, freshness_ms=0), Source()
    cache.get(["a"], source, tick=Tick(1, 0))
    assert cache.get(["a"], source, tick=Tick(2, 0)) == [2]


def test_a_value_serves_until_it_is_too_old():
    cache, source = FreshCache(size_max=9, freshness_ms=1000), Source()
    cache.get(["a"], source, tick=Tick(1, 0))
    assert cache.get(["a"], source, tick=Tick(2, 999)) == [1]
    assert cache.get(["a"], source, tick=Tick(3, 1000)) == [2]


def test_a_hurried_micro_batch_takes_older_values_and_the_next_one_is_as_fresh_as_ever():
    cache, source = FreshCache(size_max=9, freshness_ms=1000), Source()
    cache.get(["a"], source, tick=Tick(1, 0))
    assert cache.get(["a"], source, tick=Tick(2, 9_999, freshness_times=10)) == [1]
    assert cache.get(["a"], source, tick=Tick(3, 9_999)) == [2]


def test_with_freshness_0_a_hurried_micro_batch_reads_again_too():
    cache, source = FreshCache(size_max=9, freshness_ms=0), Source()
    cache.get(["a"], source, tick=Tick(1, 0))
    assert cache.get(["a"], source, tick=Tick(2, 0, freshness_times=10)) == [2]


def test_the_least_recently_asked_goes_first():
    cache, source = FreshCache(size_max=2, freshness_ms=1000), Source()
    for key in ("a", "b", "a", "c"):
        cache.get([key], source, tick=Tick(1, 0))
    cache.get(["a"], source, tick=Tick(1, 0))
    assert source.asked == [["a"], ["b"], ["c"]]
    cache.get(["b"], source, tick=Tick(1, 0))
    assert source.asked[-1] == ["b"]
