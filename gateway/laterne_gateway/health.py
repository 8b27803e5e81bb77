"""How the gateway is: counters, last values and alarms, by subject (a board, a line, a route, the gateway itself).

Every refusal is counted here with its reason. Subjects and names come from our configuration, the roster and our own
code, never from a peer's bytes: what a stranger says cannot fill memory.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable

log = logging.getLogger("laterne")

CHANGES_SAID = 5  # sentences of one alarm in that time
SAID_AGAIN_S = 60.0  # what a peer can bring about again and again is logged once a minute

Value = int | float | str | bool | None


class Health:
    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when its minute began, how often it came in it
        self._unlogged: set[tuple[str, str]] = set()  # alarms that stand and are not in the log again yet
        # Of an alarm: its last sentence, when its minute began, how often it was logged in it.
        self._logged: dict[tuple[str, str], tuple[str, float, int]] = {}
        self._progress_s: dict[str, float] = {}
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._values: defaultdict[str, dict[str, Value]] = defaultdict(dict)
        self._alarms: dict[str, dict[str, str]] = {}

    def count(self, subject: str, what: str, by: int = 1) -> None:
        self._counts[subject][what] += by

    def counted(self, subject: str, what: str) -> int:
        return self._counts[subject][what] if subject in self._counts else 0

    def note(self, subject: str, what: str, value: Value) -> None:
        """The last value of something, such as when a board was last heard."""
        self._values[subject][what] = value

    def progressed(self, subject: str) -> None:
        """A part that is never idle for long has come round once more; from the first time on it is expected to."""
        self._progress_s[subject] = self._monotonic_s()

    def forget(self, subject: str) -> None:
        """It is not there any more: nothing is expected of it, nothing of it stands."""
        for about in (self._progress_s, self._counts, self._values, self._alarms):
            about.pop(subject, None)
        for said in (self._said, self._logged):
            for key in [one for one in said if one[0] == subject]:
                said.pop(key, None)
        self._unlogged = {key for key in self._unlogged if key[0] != subject}

    def silent(self, within_s: float) -> list[str]:
        """The parts that have not come round for so long."""
        now_s = self._monotonic_s()
        return sorted(subject for subject, last_s in self._progress_s.items() if now_s - last_s > within_s)

    def alarm(self, subject: str, what: str, sentence: str) -> None:
        """Something that a person should look at. Logged when it is new; kept until clear().

        One that comes and goes is logged once a minute, one whose sentence changes each time (a platform's, with a
        number for each request) CHANGES_SAID times a minute.
        """
        alarms, key, now_s = self._alarms.setdefault(subject, {}), (subject, what), self._monotonic_s()
        if alarms.get(what) == sentence and key not in self._unlogged:
            return
        alarms[what] = sentence
        logged, at_s, times = self._logged.get(key, ("", now_s, 0))
        if now_s - at_s >= SAID_AGAIN_S:
            at_s, times = now_s, 0
        if times and (logged == sentence or times >= CHANGES_SAID):
            self._unlogged.add(key)
            return
        self._logged[key] = sentence, at_s, times + 1
        self._unlogged.discard(key)
        log.warning("%s: %s", subject, sentence)

    def clear(self, subject: str, what: str, sentence: str = "") -> None:
        """The alarm is over. sentence: what to log when there was one in the log."""
        alarms = self._alarms.get(subject)
        if not alarms:  # as it is with each report
            return
        gone = alarms.pop(what, None) is not None
        logged = (subject, what) not in self._unlogged
        self._unlogged.discard((subject, what))
        if gone and logged and sentence:
            log.info("%s: %s", subject, sentence)

    def say(self, subject: str, kind: str, sentence: str, level: int = logging.INFO, times: int = 1) -> bool:
        """Logs a sentence, so many times a minute of a subject and kind; then with the count of those left out.

        Whether it was logged. For what a peer can bring about as often as it likes.
        """
        now_s, left_out = self._monotonic_s(), 0
        at_s, came = self._said.get((subject, kind), (now_s, 0))
        if now_s - at_s >= SAID_AGAIN_S:
            at_s, left_out, came = now_s, max(0, came - times), 0
        self._said[subject, kind] = at_s, came + 1
        if came >= times:
            return False
        log.log(level, "%s%s", sentence, f" (and {left_out} times since this was last said)" if left_out else "")
        return True

    def snapshot(self) -> dict[str, dict[str, object]]:
        """Everything, by subject: {"counts": {...}, "values": {...}, "alarms": [sentences]}."""
        subjects = sorted({*self._counts, *self._values, *self._alarms})
        return {
            subject: {
                "counts": dict(self._counts.get(subject, {})),
                "values": dict(self._values.get(subject, {})),
                "alarms": list(self._alarms.get(subject, {}).values()),
            }
            for subject in subjects
        }
