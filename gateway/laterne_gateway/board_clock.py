"""What time it is on a board: from the round trips of questions and answers, as Klipper estimates its boards' clocks.

The board writes its milliseconds since boot into an answer. It did so between the moment our question left and the
moment the answer was there; the middle is the estimate and half the round trip its bound, whatever the delays were.
The shortest round trip of the last WINDOW is the best; a slower or faster crystal is found by a straight line through
the good ones. Answers to repeated questions are not used: nobody knows which of the questions was answered.

Why the uncertainty covers the truth. Every sample is an interval that holds the board's milliseconds for certain, and
what a crystal does between two samples is bounded. So two samples that contradict each other mean that something else
has happened: the board's ticks have jumped, or this machine has slept. Then all before is forgotten. The board itself
counts on a crystal that is off by DRIFT_PPM at most (clock.py of the firmware): one that is measured to be worse is
told no time, and a person is told.
"""

from collections import deque
from dataclasses import dataclass

from laterne_gateway.clock import Clock
from laterne_protocol import fields, report

WINDOW = 32  # samples; at a poll every 5 s almost three minutes
APART_MS = 1000.0  # while a backlog is fetched answers come by the thousand: 32 of them would be no time at all
GOOD_FACTOR = 2.0  # samples up to twice the shortest round trip count for the drift
DRIFT_FROM_S = 60.0  # a drift of 100 ppm moves 6 ms in a minute: about what a round trip leaves open
MAX_DRIFT_PPM = 500.0  # until it is measured: a crystal has 50, an RC oscillator trimmed at 25 Celsius a few hundred
JUDGED_S = 1800.0  # with a round trip of 20 ms 13 ppm are certain by then
KNOWN_DRIFT_PPM = 20.0  # what temperature does to a crystal between two windows
# Whole milliseconds are the board's ticks, in its answer and when it dates a report; our UTC; and the offset.
WHOLE_MS = 3.0  # 1 + 1 + 0.5 at most, of which answer and report take the same side
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
        self._first: _Sample | None = None  # of the stretch over which the crystal is judged
        self._is_off = False
        self.contradictions = 0  # how often all was forgotten because a sample did not fit to those before

    def add(self, boot: int, ticks_ms: int, asked_s: float, answered_s: float, repeated: bool) -> None:
        """An answer. repeated: the question had been sent more than once."""
        if boot != self.boot:
            self.boot = boot
            self._forget()
            self._is_off = False
        if repeated or ticks_ms > MAX_BOOT_MS or answered_s < asked_s:
            return
        sample = _Sample((asked_s + answered_s) * 500, (answered_s - asked_s) * 500, float(ticks_ms))
        if self._best is not None and self._contradict(self._best, sample):
            self.contradictions += 1
            self._forget()
        self._judge(sample)
        if self._samples and sample.middle_ms - self._samples[-1].middle_ms < APART_MS:
            if sample.half_ms >= self._samples[-1].half_ms:
                return
            self._samples.pop()  # of those within a second the shortest round trip is kept
        self._samples.append(sample)
        self._drift_ppm = self._line()
        self._best = min(self._samples, key=lambda one: self._error_ms(one, sample.middle_ms))

    def told(self, clock: Clock) -> tuple[int, int, int] | None:
        """What time() says now. The process may be held up between reading the one clock and the other."""
        before_s, utc_ms, after_s = clock.monotonic_s(), clock.utc_ms(), clock.monotonic_s()
        return self.time((before_s + after_s) / 2, utc_ms, (after_s - before_s) * 500)

    def time(self, now_s: float, utc_ms: int | None, unsure_ms: float = 0.0) -> tuple[int, int, int] | None:
        """(boot, offset_ms, uncertainty_ms) for a poll: UTC = milliseconds since that boot + offset.

        unsure_ms: how far apart the moments of now_s and utc_ms may be. None before the first sample, while our own
        clock is not credible (utc_ms None), or when the board's milliseconds cannot be right, or its crystal is not.
        The error of our own UTC is not in the uncertainty: nothing here knows it.
        """
        if self._best is None or self.boot is None or utc_ms is None or self.is_off:
            return None
        offset_ms = round(utc_ms - self._ticks_ms(self._best, now_s * 1000))
        uncertainty_ms = -int(-(self._error_ms(self._best, now_s * 1000) + unsure_ms) // 1)
        if not 0 <= offset_ms <= fields.MAX_UTC_MS or uncertainty_ms > fields.MAX_UINT32:
            return None
        return self.boot, offset_ms, uncertainty_ms

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the board's clock runs than ours; None while that is not known."""
        return self._drift_ppm

    @property
    def is_off(self) -> bool:
        """Whether the crystal is certainly worse than boards count on."""
        return self._is_off

    def _forget(self) -> None:
        self._samples.clear()
        self._best = self._first = self._drift_ppm = None

    def _judge(self, sample: _Sample) -> None:
        first = self._first
        if first is None:
            self._first = sample
            return
        passed_ms = sample.middle_ms - first.middle_ms
        gained_ms = abs(sample.ticks_ms - first.ticks_ms - passed_ms)
        if gained_ms - first.half_ms - sample.half_ms - WHOLE_MS > passed_ms * report.DRIFT_PPM / 1e6:
            self._is_off = True
        elif passed_ms > JUDGED_S * 1000:
            self._is_off = False
        if passed_ms > JUDGED_S * 1000:
            self._first = sample

    def _contradict(self, former: _Sample, sample: _Sample) -> bool:
        apart_ms = abs(self._ticks_ms(former, sample.middle_ms) - sample.ticks_ms)
        return apart_ms > self._error_ms(former, sample.middle_ms) + sample.half_ms

    def _ticks_ms(self, sample: _Sample, now_ms: float) -> float:
        return sample.ticks_ms + (now_ms - sample.middle_ms) * (1 + (self._drift_ppm or 0.0) / 1e6)

    def _error_ms(self, sample: _Sample, now_ms: float) -> float:
        ppm = MAX_DRIFT_PPM if self._drift_ppm is None else KNOWN_DRIFT_PPM + self._drift_error_ppm
        return sample.half_ms + WHOLE_MS + abs(now_ms - sample.middle_ms) * ppm / 1e6

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
        worst_ms = max(one.half_ms for one in good) + WHOLE_MS
        self._drift_error_ppm = worst_ms * sum(abs(one.middle_ms - x_mean) for one in good) / square * 1e6
        return drift_ppm if abs(drift_ppm) <= MAX_DRIFT_PPM else None
