"""Releases from the broker: asked for when a board wants one that is not here, put together, judged, stored.

The authority leaves a release at the broker in retained parts (protocol/README.md, 11.5). A gateway that listened to
all of them would get each release of the city, so it subscribes to those of one digest, which a board on its lines has
named, and unsubscribes when it has them. The digest is a board's word and the parts are anybody's: so there is one
release under way at a time, in memory with a bound; parts that do not come are given up after PATIENCE_S, parts that
are wrong at once; and the next one that boards want has its turn before the same is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256

from laterne_gateway.clock import Clock
from laterne_gateway.health import Health
from laterne_gateway.releases import ReleaseError, Releases
from laterne_protocol import release_parts
from laterne_protocol.errors import WireError

log = logging.getLogger("laterne")

SUBJECT = "releases"
PATIENCE_S = 60.0  # since the last part; retained messages come at once, 60 KB over a slow uplink in half a minute
AGAIN_S, AGAIN_CAP_S = 30.0, 3600.0  # until the same digest is tried again; doubled each time
BOUND_BYTES = release_parts.MAX_WHOLE_BYTES + release_parts.MAX_HEAD_BYTES
MAX_WANTED = 64  # digests: more than 64 releases at a time is no campaign


class ReleaseFetch:
    """in_use: digests of releases that must not make room for another."""

    def __init__(
        self, releases: Releases, in_use: Callable[[], Collection[bytes]], clock: Clock, health: Health
    ) -> None:
        self._releases = releases
        self._in_use = in_use
        self._clock = clock
        self._health = health
        self._wanted: dict[str, bytes] = {}  # by board, so that no board can want more than one
        self._tried: dict[bytes, tuple[int, float]] = {}  # how often in vain, and when it may be tried again
        self._news = asyncio.Event()
        self._under_way: bytes | None = None
        self._parts: dict[int, bytes] = {}
        self._head: tuple[int, int, bytes] | None = None
        self._kept_bytes = 0
        self._complete: asyncio.Future[bytes] | None = None
        self._heard_s = 0.0

    def want(self, board: str, digest: bytes | None) -> None:
        """This board wants a release that is not here; None: not any more. digest: 16 bytes."""
        if digest is None:
            self._wanted.pop(board, None)
        elif self._wanted.get(board) != digest:
            self._wanted[board] = digest
            self._news.set()

    async def run(
        self, subscribe: Callable[[bytes], Awaitable[None]], unsubscribe: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Fetches for ever. subscribe, unsubscribe: ask the broker for the parts of a release, and for no more of them.

        Raises what they raise, the connection being gone: what has come of a release by then is forgotten. A broker
        that does not let us hear the parts is told by ReleaseError.
        """
        while True:
            digest = await self._next()
            self._begin(digest)
            try:
                await self._gather(digest, subscribe)
                await unsubscribe(digest)
            finally:
                self._begin(None)

    def take(self, topic_end: str, body: bytes) -> None:
        """What came on a topic of parts. topic_end: what follows `.../release/`, a stranger's word."""
        name, _, number = topic_end.partition("/")
        complete = self._complete
        if self._under_way is None or complete is None or complete.done() or name != self._under_way.hex():
            self._health.count(SUBJECT, "parts unasked")
            return
        try:
            self._keep(number, body)
            whole = self._whole()
        except (WireError, ReleaseError) as why:
            complete.set_exception(ReleaseError(str(why)))
            return
        if whole is not None:
            complete.set_result(whole)

    def _keep(self, number: str, body: bytes) -> None:
        if len(number) > 3 or not number.isdecimal() or not number.isascii() or int(number) > release_parts.MAX_PARTS:
            raise ReleaseError("there is a part that is none")
        part = int(number)
        if part == 0:
            self._head = release_parts.head_of(body)
        self._kept_bytes += len(body) - len(self._parts.get(part, b""))
        if len(body) > release_parts.MAX_PART_BYTES or self._kept_bytes > BOUND_BYTES:
            raise ReleaseError("there is more of it than a release has")
        self._parts[part] = body
        self._heard_s = self._clock.monotonic_s()

    def _whole(self) -> bytes | None:
        if self._head is None:
            return None
        count, size, digest = self._head
        numbers = range(1, count + 1)
        if any(number not in self._parts for number in numbers):
            return None
        whole = b"".join(self._parts[number] for number in numbers)
        if len(whole) != size or sha256(whole).digest() != digest:
            raise ReleaseError("its parts do not make what their head says")
        return whole

    async def _next(self) -> bytes:
        while True:
            self._news.clear()
            self._forget_what_is_here()
            now_s = self._clock.monotonic_s()
            # Those that were tried least often first, then in the order in which boards wanted them.
            candidates = sorted(dict.fromkeys(self._wanted.values()), key=lambda one: self._tried.get(one, (0, 0.0))[0])
            waits_s = [self._tried.get(one, (0, 0.0))[1] - now_s for one in candidates[:MAX_WANTED]]
            for digest, wait_s in zip(candidates, waits_s, strict=False):
                if wait_s <= 0:
                    return digest
            try:
                async with asyncio.timeout(min(waits_s, default=None)):
                    await self._news.wait()
            except TimeoutError:
                pass  # one of those that wait may be tried again

    def _forget_what_is_here(self) -> None:
        self._wanted = {board: digest for board, digest in self._wanted.items() if not self._releases.has(digest)}
        wanted = set(self._wanted.values())
        self._tried = {digest: tried for digest, tried in self._tried.items() if digest in wanted}

    def _begin(self, digest: bytes | None) -> None:
        self._under_way, self._head, self._kept_bytes = digest, None, 0
        self._parts = {}
        self._heard_s = self._clock.monotonic_s()
        self._complete = None if digest is None else asyncio.get_running_loop().create_future()

    async def _gather(self, digest: bytes, subscribe: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            await subscribe(digest)
            await self._releases.add(await self._arrived(), self._in_use(), digest)
        except ReleaseError as why:
            count = self._tried.get(digest, (0, 0.0))[0]
            pause_s = min(AGAIN_CAP_S, AGAIN_S * 2.0 ** min(count, 10))
            self._tried[digest] = count + 1, self._clock.monotonic_s() + pause_s
            self._health.count(SUBJECT, "not fetched")
            self._health.alarm(
                SUBJECT, "fetch", f"{digest.hex()}, which a board wants, cannot be fetched: {why}; it is tried again"
            )
            return
        self._health.count(SUBJECT, "fetched")
        self._health.clear(SUBJECT, "fetch", f"{digest.hex()} is here")

    async def _arrived(self) -> bytes:
        assert self._complete is not None
        while True:
            left_s = self._heard_s + PATIENCE_S - self._clock.monotonic_s()
            if left_s <= 0:
                raise ReleaseError(
                    "not all of its parts are at the broker, or its rules withhold them"
                    if self._parts
                    else "it is not at the broker, or its rules withhold it"
                )
            done, _ = await asyncio.wait({self._complete}, timeout=left_s)
            if done:
                return self._complete.result()
