"""How the gateway is: counters, last values and alarms, by subject (a board, a line, a route, the gateway itself).

Every refusal is counted here with its reason. Subjects and names come from our configuration, the roster and our own
code, never from a peer's bytes: what a stranger says cannot fill memory.
"""

import logging
from collections import Counter

log = logging.getLogger("laterne")

Value = int | float | str | bool | None


class Health:
    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._values: dict[str, dict[str, Value]] = {}
        self._alarms: dict[str, dict[str, str]] = {}

    def count(self, subject: str, what: str, by: int = 1) -> None:
        self._counts.setdefault(subject, Counter())[what] += by

    def counted(self, subject: str, what: str) -> int:
        return self._counts.get(subject, Counter())[what]

    def note(self, subject: str, what: str, value: Value) -> None:
        """The last value of something, such as when a board was last heard."""
        self._values.setdefault(subject, {})[what] = value

    def alarm(self, subject: str, what: str, sentence: str) -> None:
        """Something that a person should look at. Logged when it is new; kept until clear()."""
        alarms = self._alarms.setdefault(subject, {})
        if alarms.get(what) != sentence:
            alarms[what] = sentence
            log.warning("%s: %s", subject, sentence)

    def clear(self, subject: str, what: str, sentence: str = "") -> None:
        """The alarm is over. sentence: what to log when there was one."""
        if self._alarms.get(subject, {}).pop(what, None) is not None and sentence:
            log.info("%s: %s", subject, sentence)

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
