"""The estimate of a board's clock: honest bounds, from the best round trips."""

import random

from laterne_gateway.board_clock import BoardClock
from laterne_gateway.clock import credible, rfc3339

UTC_MS = 1_770_000_000_000  # at second 0 of the gateway's monotonic clock


def test_the_true_time_is_within_the_stated_uncertainty() -> None:
    """A crystal 80 ppm fast, round trips of 3 to 400 ms that are unfairly divided: swept over seeds and an hour."""
    for seed in range(20):
        chance, clock, known = random.Random(seed), BoardClock(), 0
        for poll in range(720):
            asked_s = 5.0 * poll
            there_s, back_s = chance.choice([0.002, 0.01, 0.2]), chance.choice([0.001, 0.02, 0.2])
            answered_s = asked_s + there_s + back_s
            ticks_ms = (asked_s + there_s + 7.0) * 1000 * (1 + 80e-6)
            clock.add(3, int(ticks_ms), asked_s, answered_s, False)
            now_s = answered_s + 1.0
            found = clock.time(now_s, UTC_MS + round(now_s * 1000))
            assert found is not None
            boot, offset_ms, uncertainty_ms = found
            true_ms = UTC_MS + now_s * 1000 - (now_s + 7.0) * 1000 * (1 + 80e-6)
            assert boot == 3
            assert abs(offset_ms - true_ms) <= uncertainty_ms, f"seed {seed}, poll {poll}"
            known += clock.drift_ppm is not None
        assert known > 300
        assert uncertainty_ms < 30


def test_an_answer_to_a_repeated_question_tells_nothing() -> None:
    clock = BoardClock()
    clock.add(1, 1000, 0.0, 0.01, True)
    assert clock.time(1.0, UTC_MS) is None


def test_a_restart_of_the_board_forgets_its_old_clock() -> None:
    clock = BoardClock()
    clock.add(1, 500_000, 0.0, 0.01, False)
    clock.add(2, 40, 10.0, 10.01, False)
    found = clock.time(10.01, UTC_MS)
    assert found is not None
    assert found[0] == 2
    assert abs(found[1] - (UTC_MS - 45)) <= found[2]


def test_a_gateway_without_a_clock_tells_no_time() -> None:
    clock = BoardClock()
    clock.add(1, 1000, 0.0, 0.01, False)
    assert clock.time(1.0, None) is None
    assert credible(5_000_000) is None
    assert credible(UTC_MS) == UTC_MS


def test_nonsense_from_a_board_makes_no_time_of_it() -> None:
    clock = BoardClock()
    clock.add(1, 2**53 - 1, 0.0, 0.01, False)
    assert clock.time(1.0, UTC_MS) is None
    clock.add(1, 2**45, 1.0, 1.01, False)  # a thousand years since boot
    assert clock.time(1.0, UTC_MS) is None


def test_times_are_written_as_rfc_3339() -> None:
    assert rfc3339(1_795_335_330_250) == "2026-11-22T08:15:30.250Z"


def test_a_fetched_backlog_does_not_push_out_what_was_learned_before() -> None:
    """Two minutes of polls tell the drift; then a hundred answers within a second, each slow. The drift stays known."""
    clock = BoardClock()
    for poll in range(25):
        clock.add(1, int(5000 * poll * (1 + 80e-6)), 5.0 * poll - 0.005, 5.0 * poll + 0.005, False)
    before = clock.drift_ppm
    assert before is not None
    for answer in range(100):
        at_s = 125.0 + answer * 0.009
        clock.add(1, int(at_s * 1000 * (1 + 80e-6)), at_s - 0.2, at_s + 0.2, False)
    assert clock.drift_ppm == before


def _told(clock: BoardClock, at_s: float, ticks_ms: int, half_s: float = 0.005) -> tuple[int, int, int] | None:
    clock.add(1, ticks_ms, at_s - half_s, at_s + half_s, False)
    return clock.time(at_s + half_s, UTC_MS + round((at_s + half_s) * 1000))


def test_ticks_that_jump_make_all_before_worthless() -> None:
    """Half an hour is missing on the board; the sample before it had the shorter round trip."""
    clock = BoardClock()
    for poll in range(10):
        _told(clock, 5.0 * poll, 5000 * poll)
    found = _told(clock, 50.0, 50_000 + 1_800_000, half_s=0.1)
    assert found is not None
    assert abs(found[1] - (UTC_MS - 1_800_000)) <= found[2]
    assert clock.contradictions == 1


def test_a_crystal_that_is_worse_than_boards_count_on_is_told_no_time() -> None:
    for ppm, told in ((95, True), (-95, True), (160, False), (-160, False)):
        clock = BoardClock()
        for poll in range(100):
            found = _told(clock, 5.0 * poll, int(5000 * poll * (1 + ppm / 1e6)) + 100_000)
        assert (found is not None, clock.is_off) == (told, not told), ppm


class HeldUp:
    """A machine that does something else for 80 ms between any two looks at its clocks."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def monotonic_s(self) -> float:
        self.at_s += 0.08
        return self.at_s

    def utc_ms(self) -> int | None:
        self.at_s += 0.08
        return UTC_MS + round(self.at_s * 1000)


def test_a_process_that_is_held_up_between_its_two_clocks_says_so() -> None:
    clock = BoardClock()
    clock.add(1, 99_000, 99.99, 100.01, False)
    found = clock.told(HeldUp())
    assert found is not None
    assert found[2] >= 80
    assert abs(found[1] - (UTC_MS + 1000)) <= found[2]
