"""The cache of tokens, datasets and corrections: values expire, and so many are held at most."""

from rpc.cache import ExpiringCache


def test_a_value_expires_and_the_oldest_one_makes_way() -> None:
    """A value is returned before its time and not at it; beyond the size, the one written longest ago is dropped."""
    now = 0.0
    cache = ExpiringCache[str, int](2, clock=lambda: now)
    for name in "abac":
        cache.put(name, len(cache), until=10.0)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (2, None, 2, 2)
    now = 9.9
    assert cache.get("c") == 2
    now = 10.0
    assert cache.get("c") is None
