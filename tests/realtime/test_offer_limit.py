"""The bucket of offers per address, on a clock of its own."""

import pytest

from realtime.offer_limit import TABLE, OfferLimit

S = 1_000_000_000


def test_a_burst_then_the_rate() -> None:
    limit = OfferLimit(rate=10, burst=20)
    assert [limit.wait_s("192.0.2.1", 0) for _ in range(20)] == [0.0] * 20
    assert limit.wait_s("192.0.2.1", 0) == pytest.approx(0.1)
    assert limit.wait_s("192.0.2.1", S // 20) == pytest.approx(0.05)
    assert limit.wait_s("192.0.2.2", S // 20) == 0.0  # nobody else waits for it
    admitted = [limit.wait_s("192.0.2.1", S // 20 + n * S // 100) for n in range(1, 1001)].count(0)
    assert 100 <= admitted <= 101  # ten seconds, asked a hundred times in each


def test_rest_fills_the_bucket_and_not_more() -> None:
    limit = OfferLimit(rate=10, burst=3)
    for now in (0, 3600 * S):
        assert [limit.wait_s("a", now) == 0 for _ in range(4)] == [True, True, True, False]
    assert limit.wait_s("a", 0) > 0  # a clock that goes back gives nothing


def test_the_table_is_bounded_and_forgets_the_longest_silent() -> None:
    limit = OfferLimit(rate=0.01, burst=1)
    assert limit.wait_s("first", 0) == 0 and limit.wait_s("second", 0) == 0
    for number in range(TABLE - 1):
        assert limit.wait_s(f"10.0.{number >> 8}.{number & 255}", 0) == 0
        assert limit.wait_s("second", 0) > 0
    assert len(limit) == TABLE
    assert limit.wait_s("second", 0) > 0
    assert limit.wait_s("first", 0) == 0


def test_an_ipv6_subscriber_is_one_caller_and_a_mapped_address_its_ipv4() -> None:
    limit = OfferLimit(rate=1, burst=1)
    assert limit.wait_s("2001:db8:1:2::1", 0) == 0
    assert limit.wait_s("2001:db8:1:2:ffff::7", 0) > 0
    assert limit.wait_s("2001:db8:1:3::1", 0) == 0
    assert limit.wait_s("::ffff:192.0.2.9", 0) == 0 and limit.wait_s("192.0.2.9", 0) > 0
    assert limit.wait_s("fe80::1%eth0", 0) == 0 and limit.wait_s("", 0) == 0
