"""The offset between two clocks, whatever the way there and back takes."""

import math

from hypothesis import given
from hypothesis import strategies as st

from semagent_drivers.remote.farclock import FarClock

S = 1_000_000_000
DRIFT = 600e-6

delays = st.integers(0, S)
exchanges = st.lists(st.tuples(delays, delays, st.integers(0, 100 * S)), min_size=1, max_size=20)


def test_before_the_first_answer_nothing_is_known():
    assert FarClock().error_ns(5) == math.inf


def test_equal_ways_give_the_offset_exactly():
    clock = FarClock()
    clock.learn(sent_ns=1000, far_ns=7_001_500, received_ns=2000)
    assert clock.error_ns(2000) == 500
    assert clock.to_here(7_001_600, now_ns=3000) == 1600
    assert clock.to_far(1600) == 7_001_600


@given(offset=st.integers(-(10**18), 10**18), exchanges=exchanges)
def test_the_error_stays_within_its_bound(offset, exchanges):
    clock, now_ns = FarClock(), 10 * S
    for there_ns, back_ns, pause_ns in exchanges:
        far_ns = now_ns + there_ns + offset
        received_ns = now_ns + there_ns + back_ns
        clock.learn(now_ns, far_ns, received_ns)
        assert abs(clock.to_far(0) - offset) <= clock.error_ns(received_ns) + 1
        now_ns = received_ns + pause_ns


@given(
    offset=st.integers(-(10**15), 10**15),
    rate=st.floats(-DRIFT, DRIFT),
    exchanges=exchanges,
)
def test_the_error_stays_within_its_bound_when_the_clocks_drift(offset, rate, exchanges):
    clock, now_ns = FarClock(), 0
    for there_ns, back_ns, pause_ns in exchanges:

        def far(here_ns):
            return here_ns + offset + round(rate * here_ns)

        received_ns = now_ns + there_ns + back_ns
        clock.learn(now_ns, far(now_ns + there_ns), received_ns)
        now_ns = received_ns + pause_ns
        # The estimate is from within the exchange, which itself took its time to drift in.
        slack_ns = DRIFT * (there_ns + back_ns + sum(sum(e[:2]) for e in exchanges)) + 2
        assert abs(clock.to_far(now_ns) - far(now_ns)) <= clock.error_ns(now_ns) + slack_ns


def test_a_slow_answer_does_not_spoil_a_good_estimate():
    clock = FarClock()
    clock.learn(0, 1000, 100)
    clock.learn(S, S + 1_000_000, S + 500_000_000)
    assert clock.to_far(0) == 950


def test_a_worse_answer_takes_the_place_of_an_estimate_that_is_old():
    clock = FarClock()
    clock.learn(0, 1000, 100)
    late_ns = 1000 * S
    clock.learn(late_ns, late_ns + 5000, late_ns + 1000)
    assert clock.to_far(0) == 4500
    assert clock.error_ns(late_ns + 1000) == 500


def test_nothing_is_known_before_it_happened():
    clock = FarClock()
    clock.learn(0, 100, 0)
    assert clock.to_here(1100, now_ns=1000) == 1000
    assert clock.to_here(1101, now_ns=1000) == 1000
    assert clock.to_here(1099, now_ns=1000) == 999
