"""What time it is on a board: from the round trips of questions and answers, as Klipper estimates its boards' clocks.

The board writes its milliseconds since boot into an answer. It did so between the moment our question left and the
moment the answer was there; the middle is the estimate and half the round trip its bound, whatever the delays were.
The shortest round trip of the last WINDOW is the best; a slower or faster crystal is found by a straight line through
the good ones. Answers to repeated questions are not used: nobody knows which of the questions was answered.
"""

from collections import deque
from dataclasses import dataclass

from laterne_protocol import fields

WINDOW = 32  # samples; at a poll every 5 s almost three minutes
APART_MS = 1000.0  # while a backlog is fetched answers come by the thousand: 32 of them would be no time at all
GOOD_FACTOR = 2.0  # samples up to twice the shortest round trip count for the drift
DRIFT_FROM_S = 60.0  # a drift of 100 ppm moves 6 ms in a minute: about what a round trip leaves open
MAX_DRIFT_PPM = 500.0  # a crystal has 50, an RC oscillator trimmed at 25 Celsius a few hundred
KNOWN_DRIFT_PPM = 20.0  # what temperature does to a crystal between two windows
TICK_MS = 1.0  # the board counts whole milliseconds
MAX_BOOT_MS = 2**46  # 2,000 years since boot: beyond it a board talks nonsense


@dataclass(frozen=True)
class _Sample:
    middle_ms: float  # of our monotonic clock
    half_ms: float
    ticks_ms: float


class BoardClock:
    """Of one board since one boot. Times are seconds of the gateway's monotonic clock."""

    def __init__(self) -> None:
        self.boot: int | None = None
        self._samples: deque[_Sample] = deque(maxlen=WINDOW)
        self._best: _Sample | None = None
        self._drift_ppm: float | None = None
        self._drift_error_ppm = 0.0

    def add(self, boot: int, ticks_ms: int, asked_s: float, answered_s: float, repeated: bool) -> None:
        """An answer. repeated: the question had been sent more than once."""
        if boot != self.boot:
            self.boot = boot
            self._samples.clear()
            self._best = self._drift_ppm = None
        if repeated or ticks_ms > MAX_BOOT_MS or answered_s < asked_s:
            return
        sample = _Sample((asked_s + answered_s) * 500, (answered_s - asked_s) * 500, float(ticks_ms))
        if self._samples and sample.middle_ms - self._samples[-1].middle_ms < APART_MS:
            if sample.half_ms >= self._samples[-1].half_ms:
                return
            self._samples.pop()  # of those within a second the shortest round trip is kept
        self._samples.append(sample)
        self._drift_ppm = self._line()
        self._best = min(self._samples, key=lambda one: self._error_ms(one, sample.middle_ms))

    def time(self, now_s: float, utc_ms: int | None) -> tuple[int, int, int] | None:
        """(boot, offset_ms, uncertainty_ms) for a poll: UTC = milliseconds since that boot + offset.

        None before the first sample, while our own clock is not credible (utc_ms None), or when the board's
        milliseconds cannot be right. The error of our own UTC is not in the uncertainty: nothing here knows it.
        """
        if self._best is None or self.boot is None or utc_ms is None:
            return None
        passed_ms = now_s * 1000 - self._best.middle_ms
        ticks_ms = self._best.ticks_ms + passed_ms * (1 + (self._drift_ppm or 0.0) / 1e6)
        offset_ms = round(utc_ms - ticks_ms)
        uncertainty_ms = -int(-self._error_ms(self._best, now_s * 1000) // 1)
        if not 0 <= offset_ms <= fields.MAX_UTC_MS or uncertainty_ms > fields.MAX_UINT32:
            return None
        return self.boot, offset_ms, uncertainty_ms

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the board's clock runs than ours; None while that is not known."""
        return self._drift_ppm

    def _error_ms(self, sample: _Sample, now_ms: float) -> float:
        ppm = MAX_DRIFT_PPM if self._drift_ppm is None else KNOWN_DRIFT_PPM + self._drift_error_ppm
        return sample.half_ms + TICK_MS + abs(now_ms - sample.middle_ms) * ppm / 1e6

    def _line(self) -> float | None:
        """Least squares through the good samples, and how wrong the slope may be."""
        shortest = min(one.half_ms for one in self._samples)
        good = [one for one in self._samples if one.half_ms <= shortest * GOOD_FACTOR]
        if len(good) < 3 or good[-1].middle_ms - good[0].middle_ms < DRIFT_FROM_S * 1000:
            return None
        x_mean = sum(one.middle_ms for one in good) / len(good)
        y_mean = sum(one.ticks_ms for one in good) / len(good)
        square = sum((one.middle_ms - x_mean) ** 2 for one in good)
        product = sum((one.middle_ms - x_mean) * (one.ticks_ms - y_mean) for one in good)
        drift_ppm = (product / square - 1) * 1e6
        # Each sample may be wrong by half its round trip and a tick, all of them in the worst direction.
        worst_ms = max(one.half_ms for one in good) + TICK_MS
        self._drift_error_ppm = worst_ms * sum(abs(one.middle_ms - x_mean) for one in good) / square * 1e6
        return drift_ppm if abs(drift_ppm) <= MAX_DRIFT_PPM else None
