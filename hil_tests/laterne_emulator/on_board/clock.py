"""The module `time` of an emulated board: ticks of 30 bits that start anywhere and drift.

The unix port's ticks wrap at 2^62, those of boards at 2^30: after 12.4 days in ms, 17.9 minutes in us.
`start` puts this module in place of `time` after asyncio was imported: the C core of asyncio has ticks of its
own, and would mix the two.
"""

from time import gmtime, localtime, mktime, sleep, sleep_ms, sleep_us, ticks_cpu  # noqa: F401 - what a board's `time` has and needs no change
from time import ticks_diff as _diff
from time import ticks_us as _real_us

_MASK = 0x3FFFFFFF
_HALF = 0x20000000

_base = _real_us()
_offset_us = 0
_ppm = 0
_utc_s = 0


def _set(ticks_ms_at_start: int, ppm: int, utc_s_at_start: int) -> None:
    global _base, _offset_us, _ppm, _utc_s
    _base = _real_us()
    _offset_us = ticks_ms_at_start * 1000
    _ppm = ppm
    _utc_s = utc_s_at_start


def _since_start_us() -> int:
    since = _diff(_real_us(), _base)
    return since + since * _ppm // 1000000


def ticks_ms() -> int:
    return (_offset_us + _since_start_us()) // 1000 & _MASK


def ticks_us() -> int:
    return _offset_us + _since_start_us() & _MASK


def ticks_add(ticks: int, delta: int) -> int:
    return ticks + delta & _MASK


def ticks_diff(end: int, start: int) -> int:
    return (end - start + _HALF & _MASK) - _HALF


def time() -> int:  # an int, as on boards; the unix port has a float
    return _utc_s + _since_start_us() // 1000000


def time_ns() -> int:
    return _utc_s * 1000000000 + _since_start_us() * 1000
