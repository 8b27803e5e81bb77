"""Who may be sent next: the observations that wait, by Datastream, live before backlog, in order.

One request at a time is under way for a Datastream: servers lock its row, and what is there can only be told when
nothing else is on its way. Different Datastreams go side by side. One that is in trouble goes alone and in smaller
pieces, rests longer each time, and holds back no other.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from laterne_gateway.backoff import Backoff
from laterne_gateway.dead_letters import DeadLetter
from laterne_gateway.routes.blame import NEVER
from laterne_gateway.routes.feed import UnderWay
from laterne_gateway.routes.observations import Observation

REST_S, REST_CAP_S = 0.5, 60.0
MAX_BEHIND = 100  # half of what sta_looking.py takes for certain: a next process still finds what went past them
SINGLES = 8  # so many of a Datastream, one after the other, are dead letters of their own; then what a report has of it


@dataclass(slots=True, eq=False)
class Waiting:
    """An observation that the platform has not confirmed. lane: where its lane begins; -1: of none.

    maybe_there: it may have been stored already. sent: by this process. looked: it was not there when last looked, and
    not sent since.
    refused_at: which request was the last when it was first refused, or alone failed with (blame.py).
    refused_s: when. is_behind: others that came after it may have been sent. letter: it was a dead letter, or in one.
    """

    observation: Observation
    under_way: UnderWay
    lane: int
    maybe_there: bool
    sent: bool = False
    looked: bool = False
    refused_at: int = NEVER
    refused_s: float = 0.0
    is_behind: bool = False
    letter: DeadLetter | None = None


@dataclass(slots=True, eq=False)
class Stream:
    """One Datastream of ours. limit: how many rows of it may go together now.

    given_up: how many were dead letters, one after the other. behind: how many that wait are behind others. absent: by
    lane, how many in a row were not there when it was looked (sensorthings.py).
    """

    board: str
    channel: int
    limit: int
    live: deque[Waiting] = field(default_factory=deque)
    late: deque[Waiting] = field(default_factory=deque)
    busy: bool = False
    rests_until_s: float = 0.0
    given_up: int = 0
    behind: int = 0
    failures: int = 0  # of the server with its rows, one after the other
    absent: dict[int, int] = field(default_factory=dict)
    rest: Backoff = field(default_factory=lambda: Backoff(REST_S, REST_CAP_S, floor_s=REST_S / 5))


Parts = dict[Stream, list[Waiting]]


class Queues:
    """rows: at most so many observations in a request."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._streams: dict[tuple[str, int], Stream] = {}

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def add(self, waiting: Waiting, *, live: bool) -> None:
        """At the end of its Datastream's queue."""
        one = waiting.observation
        stream = self._streams.get((one.board, one.channel))
        if stream is None:
            stream = self._streams[one.board, one.channel] = Stream(one.board, one.channel, self._rows)
        (stream.live if live else stream.late).append(waiting)

    def put_back(self, stream: Stream, rows: list[Waiting], *, live: bool) -> None:
        """Before all that waits there."""
        (stream.live if live else stream.late).extendleft(reversed(rows))

    def withdraw(self, stream: Stream, under_way: UnderWay) -> list[Waiting]:
        """Takes out what waits there of this report."""
        taken: list[Waiting] = []
        for queue in (stream.live, stream.late):
            of_it = [one for one in queue if one.under_way is under_way]
            if of_it:
                taken += of_it
                kept = [one for one in queue if one.under_way is not under_way]
                queue.clear()
                queue.extend(kept)
        return taken

    def make_late(self, lane: int) -> None:
        """What was live is what an outage has left behind."""
        for stream in self:
            kept: deque[Waiting] = deque()
            for waiting in stream.live:
                (stream.late if waiting.lane == lane else kept).append(waiting)
            stream.live = kept

    def take(self, now_s: float) -> Parts | None:
        """What goes next, by Datastream; None: nothing may. These streams are busy until the caller says otherwise."""
        for live in (True, False):
            parts: Parts = {}
            room = self._rows
            for key, stream in list(self._streams.items()):
                queue = stream.live if live else stream.late
                if not queue or stream.busy or stream.rests_until_s > now_s:
                    continue
                in_trouble = stream.limit < self._rows
                if in_trouble and parts:
                    continue
                count = min(room, stream.limit, len(queue))
                parts[stream] = [queue.popleft() for _ in range(count)]
                stream.busy = True
                room -= count
                # Its turn comes again after the others'.
                self._streams[key] = self._streams.pop(key)
                if not room or in_trouble:
                    break
            if parts:
                return parts
        return None

    def next_s(self, now_s: float) -> float | None:
        """When the first resting one may go again; None: none rests that has anything."""
        resting = [
            one.rests_until_s for one in self if (one.live or one.late) and not one.busy and one.rests_until_s > now_s
        ]
        return min(resting) if resting else None

    def halve(self, stream: Stream, sent: int) -> None:
        """Of so many rows that went together some were refused: half as many, at once."""
        stream.limit = max(1, min(stream.limit, sent) // 2)

    def rest(self, stream: Stream, now_s: float) -> None:
        """The server failed with something that says nothing of its rows."""
        stream.rests_until_s = now_s + stream.rest.failed()

    def in_trouble(self, stream: Stream, sent: int, now_s: float) -> None:
        """The server failed with so many rows: after a rest the same again, and then half as many."""
        stream.failures += 1
        if stream.failures > 1:
            self.halve(stream, sent)
        self.rest(stream, now_s)

    def went_well(self, stream: Stream) -> None:
        """Some were taken, or given up; where all are given up the next one goes alone, too."""
        stream.limit = 1 if stream.given_up >= SINGLES else min(self._rows, stream.limit * 4)
        stream.rests_until_s = 0.0
        stream.failures = 0
        stream.rest.reset()
