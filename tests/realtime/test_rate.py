"""Rate, keyframe and retransmission rules against a clock that the test turns."""

import pytest

from realtime.rate import SECOND, KeyframeLimiter, RateController, RetransmissionLimit

MS = 1_000_000


def controller() -> RateController:
    return RateController(floor=150_000, ceiling=2_000_000)


def test_target_is_the_ceiling_until_somebody_reports():
    assert controller().target == 2_000_000


def test_target_is_four_fifths_of_the_estimate_within_floor_and_ceiling():
    rate = controller()
    assert rate.estimate("a", 1_000_000, 0) == 800_000
    assert rate.estimate("a", 9_000_000, 1) == 2_000_000
    assert rate.estimate("a", 100_000, 2) == 150_000
    assert rate.estimate("a", -5, 3) == 150_000


def test_small_moves_change_nothing():
    rate = controller()
    rate.estimate("a", 1_000_000, 0)
    assert rate.estimate("a", 1_039_000, 1) == 800_000
    assert rate.estimate("a", 962_000, 2) == 800_000
    assert rate.estimate("a", 1_050_000, 3) == 840_000


def test_slowest_viewer_decides_and_leaving_releases_the_rate():
    rate = controller()
    rate.estimate("fast", 2_000_000, 0)
    assert rate.estimate("slow", 500_000, 0) == 400_000
    assert rate.estimate_min == 500_000
    assert rate.estimate("fast", 9_000_000, 1) == 400_000
    assert rate.forget("slow", 2) == 2_000_000
    assert rate.forget("fast", 3) == 2_000_000 and rate.estimate_min is None


def test_loss_cuts_by_half_its_fraction_at_most_once_a_report():
    rate = controller()
    assert rate.loss("a", 0.4, 0) == 1_600_000
    assert rate.loss("a", 0.4, 300 * MS) == 1_600_000  # the same report, read twice
    assert rate.loss("a", 0.4, SECOND) == 1_280_000


def test_loss_in_between_holds_the_rate():
    rate = controller()
    rate.loss("a", 0.4, 0)
    assert rate.loss("a", 0.05, SECOND) == 1_600_000


def test_rate_recovers_by_eight_percent_a_second_however_often_reports_come():
    often, seldom = controller(), controller()
    for rate in (often, seldom):
        rate.loss("a", 0.5, 0)
    for tenth in range(1, 21):
        often.loss("a", 0.0, tenth * SECOND // 10)
    for second in (1, 2):
        seldom.loss("a", 0.0, second * SECOND)
    assert seldom.target == pytest.approx(1_500_000 * 1.08**2, rel=0.001)
    assert often.target == pytest.approx(seldom.target, rel=0.05)  # within the hysteresis
    for second in range(3, 9):
        seldom.loss("a", 0.0, second * SECOND)
    assert seldom.target == 2_000_000


def test_loss_of_one_viewer_is_its_own():
    rate = controller()
    rate.loss("a", 1.0, 0)
    assert rate.target == 1_000_000
    assert rate.forget("a", 1) == 2_000_000


def test_ceiling_moves_live_and_never_below_the_floor():
    rate = controller()
    assert rate.limit_to(1_000_000, 0) == 1_000_000
    assert rate.limit_to(5_000_000, 1) == 5_000_000
    assert rate.limit_to(10, 2) == 150_000


def test_starved_viewer_stops_holding_the_others_down():
    rate = controller()
    rate.estimate("ok", 2_500_000, 0)
    assert rate.estimate("thin", 60_000, 0) == 150_000
    assert rate.estimate("ok", 2_500_000, 4 * SECOND) == 150_000 and not rate.starved(4 * SECOND)
    assert rate.estimate("ok", 2_500_000, 5 * SECOND) == 2_000_000
    assert rate.starved(5 * SECOND) == ["thin"]
    assert rate.estimate("thin", 400_000, 6 * SECOND) == 320_000  # it came back
    assert not rate.starved(6 * SECOND)


def test_lone_starved_viewer_gets_the_floor():
    rate = controller()
    for second in range(10):
        assert rate.estimate("thin", 60_000, second * SECOND) == 150_000
    assert rate.starved(10 * SECOND) == ["thin"]


def test_floor_above_ceiling_is_refused():
    with pytest.raises(ValueError, match="floor"):
        RateController(floor=2, ceiling=1)


def keyframes(limiter: KeyframeLimiter, requests_ms: set[int], until_ms: int) -> list[int]:
    """Times of the keyframes of a stream with a frame every 10 ms."""
    out = []
    for now_ms in range(0, until_ms, 10):
        if now_ms in requests_ms:
            limiter.request()
        if limiter.due(now_ms * MS):
            limiter.coded(now_ms * MS)
            limiter.satisfied()
            out.append(now_ms)
    return out


def test_no_keyframe_without_a_request():
    assert keyframes(KeyframeLimiter(300 * MS), set(), 2000) == []


def test_first_request_is_answered_at_once_and_an_early_one_is_kept():
    assert keyframes(KeyframeLimiter(300 * MS), {100, 150}, 2000) == [100, 400]


def test_forty_requests_at_once_cost_one_keyframe():
    limiter = KeyframeLimiter(300 * MS)
    for _ in range(40):
        limiter.request()
    assert keyframes(limiter, set(), 2000) == [0]
    assert limiter.requests == 40


def test_steady_requests_give_one_keyframe_per_interval():
    assert keyframes(KeyframeLimiter(300 * MS), set(range(0, 1500, 10)), 1500) == [
        0, 300, 600, 900, 1200,
    ]  # fmt: skip


def test_unrequested_keyframe_counts_for_the_interval():
    limiter = KeyframeLimiter(300 * MS)
    limiter.coded(0)  # the encoder was opened anew
    assert keyframes(limiter, {100}, 1000) == [300]


def test_a_request_about_the_keyframe_that_is_going_out_is_kept():
    limiter = KeyframeLimiter(300 * MS)
    limiter.request()
    limiter.coded(0)
    limiter.request()  # somebody has it already, and not whole
    limiter.satisfied()
    assert limiter.pending
    limiter.coded(300 * MS)
    limiter.satisfied()
    assert not limiter.pending


def test_interval_is_free_only_once_it_is_past_whether_somebody_asks_or_not():
    limiter = KeyframeLimiter(300 * MS)
    assert limiter.free(0) and not limiter.due(0)
    limiter.coded(0)
    assert not limiter.free(299 * MS) and limiter.free(300 * MS)


def test_packet_is_sent_again_at_most_six_times_then_a_keyframe_goes_out():
    limit = RetransmissionLimit()
    answers = [limit.decide(7, n * 50 * MS) for n in range(8)]
    assert answers == [(True, False)] * 6 + [(False, True)] * 2
    assert (limit.sent, limit.given_up) == (6, 2)


def test_packet_asked_for_twice_within_15_ms_is_sent_once():
    limit = RetransmissionLimit()
    assert limit.decide(7, 0) == (True, False)
    assert limit.decide(7, 10 * MS) == (False, False)
    assert limit.decide(7, 16 * MS) == (True, False)


def test_old_packet_is_given_up():
    limit = RetransmissionLimit()
    limit.decide(7, 0)
    assert limit.decide(7, 601 * MS) == (False, True)


def test_keyframe_makes_older_requests_worthless_and_newer_ones_not():
    limit = RetransmissionLimit()
    limit.decide(7, 0)
    limit.keyframe(100 * MS)
    assert limit.decide(7, 120 * MS) == (False, False)
    assert limit.decide(8, 120 * MS) == (True, False)


def test_giving_up_asks_for_no_second_keyframe_within_800_ms():
    limit = RetransmissionLimit()
    limit.keyframe(0)
    limit.decide(7, 10 * MS)
    assert limit.decide(7, 700 * MS) == (False, False)
    limit.decide(8, 800 * MS)
    assert limit.decide(8, 1500 * MS) == (False, True)


def test_retransmission_stays_within_its_share_of_the_rate():
    limit = RetransmissionLimit()
    limit.bitrate = 4_000_000
    sent = 0
    for n in range(10_000):  # 1,000 different packets a second for 10 s
        sent += limit.decide(n % 65_536, n * MS)[0]
    allowed = 40 + 10 * 0.2 * 4_000_000 / (1200 * 8)
    assert sent == pytest.approx(allowed, rel=0.02)
    assert limit.over_budget == 10_000 - sent


def test_sequence_number_that_came_round_is_a_new_packet_and_the_table_is_bounded():
    limit = RetransmissionLimit()
    for n in range(6):
        limit.decide(7, n * 50 * MS)
    assert limit.decide(7, 6 * SECOND) == (True, False)
    for n in range(70_000):
        limit.decide(n % 65_536, (7000 + n) * MS)
    assert len(limit._asked) <= RetransmissionLimit.TABLE
