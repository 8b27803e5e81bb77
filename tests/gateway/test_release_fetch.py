"""Releases by the broker: fetched when a board wants one, judged, bounded; how boards stand is told to the broker."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiomqtt
import pytest
from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.fake_releases import contents, release
from tests.gateway.parts import TENANT, GatewayProcess, until
from tests.gateway.street import quick
from tests.gateway.subscriber import Subscriber
from tests.servers import Mosquitto

from laterne_gateway import release_fetch
from laterne_gateway.clock import SystemClock
from laterne_gateway.health import Health
from laterne_gateway.release_fetch import ReleaseFetch
from laterne_gateway.releases import Releases
from laterne_protocol import cbor, order, release_parts
from laterne_protocol.release_file import Release

OTHER = bytes(range(16))


class Broker:
    """In the place of a broker: what lies there by digest, and who has asked for it. No bytes of MQTT."""

    def __init__(self, directory: Path) -> None:
        self.authority = FakeAuthority()
        self.health = Health()
        self.releases = Releases(directory, lambda: self.authority.trust(), self.health)
        self.fetch = ReleaseFetch(self.releases, lambda: (), SystemClock(), self.health)
        self.kept: dict[bytes, list[tuple[str, bytes]]] = {}
        self.asked: list[bytes] = []
        self.left: list[bytes] = []

    def lay(self, digest: bytes, messages: list[bytes]) -> None:
        self.kept[digest] = [(str(number), body) for number, body in enumerate(messages)]

    async def subscribe(self, digest: bytes) -> None:
        self.asked.append(digest)
        for number, body in self.kept.get(digest, []):
            self.fetch.take(f"{digest.hex()}/{number}", body)

    async def unsubscribe(self, digest: bytes) -> None:
        self.left.append(digest)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.fetch.run(self.subscribe, self.unsubscribe))
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path)


async def test_a_release_that_a_board_wants_is_fetched_judged_and_stored(broker: Broker) -> None:
    made = release(broker.authority)
    broker.lay(made.digest, list(release_parts.parts_of(made.to_bytes())))
    broker.fetch.take(f"{made.digest.hex()}/0", b"nobody has asked")
    async with broker.running():
        broker.fetch.want("LE-0007", made.digest)
        await until(lambda: broker.releases.has(made.digest))
        await until(lambda: broker.left == [made.digest])
    assert await broker.releases.release(made.digest) is not None
    assert broker.health.counted("releases", "parts unasked") == 1


async def test_parts_may_come_in_any_order_and_twice(broker: Broker) -> None:
    made = release(broker.authority, contents() | {f"x{n}.mpy": bytes(Key().public) * 500 for n in range(9)})
    broker.lay(made.digest, list(release_parts.parts_of(made.to_bytes())))
    assert len(broker.kept[made.digest]) >= 2
    broker.kept[made.digest] = broker.kept[made.digest][::-1] + broker.kept[made.digest]
    async with broker.running():
        broker.fetch.want("LE-0007", made.digest)
        await until(lambda: broker.releases.has(made.digest))


def mixed(one: Release, other: Release) -> list[bytes]:
    """The envelope of one release with the files of another, under a head that fits."""
    parts, others = (cbor.decode(made.to_bytes(), 1 << 20) for made in (one, other))
    assert isinstance(parts, list)
    assert isinstance(others, list)
    return list(release_parts.parts_of(cbor.encode([*parts[:2], others[2][:-1], *parts[3:]])))


def damaged(made: Release, authority: FakeAuthority) -> dict[str, list[bytes]]:
    head, part = release_parts.parts_of(made.to_bytes())
    flipped = bytes((part[500] ^ 1,))
    unsigned = release(authority, keys=[Key()]).to_bytes()
    another = release(authority, sequence=9).to_bytes()
    return {
        "damaged part": [head, part[:500] + flipped + part[501:]],
        "damaged part, head to match": list(release_parts.parts_of(part[:500] + flipped + part[501:])),
        "part cut short": [head, part[:-1]],
        "not a head": [b"\x80", part],
        "not signed by us": list(release_parts.parts_of(unsigned)),
        "another release of ours under this name": list(release_parts.parts_of(another)),
        "parts of two releases": mixed(made, release(authority, sequence=8)),
        "part too long": [cbor.encode([1, 60_001, bytes(32)]), bytes(60_001)],
        "more parts than there may be": [cbor.encode([65, 60_000, bytes(32)]), *[b"x"] * 66],
        "endless": [cbor.encode([64, 1 << 20, bytes(32)]), *[bytes(60_000)] * 20],
    }


@pytest.mark.parametrize("how", list(damaged(release(FakeAuthority()), FakeAuthority())))
async def test_what_is_not_the_release_is_not_stored_and_the_next_one_has_its_turn(broker: Broker, how: str) -> None:
    made, good = release(broker.authority), release(broker.authority, sequence=7)
    broker.lay(made.digest, damaged(made, broker.authority)[how])
    broker.lay(good.digest, list(release_parts.parts_of(good.to_bytes())))
    async with broker.running():
        broker.fetch.want("LE-0001", made.digest)
        broker.fetch.want("LE-0002", good.digest)
        await until(lambda: broker.releases.has(good.digest))
    assert not broker.releases.has(made.digest)
    assert broker.asked == [made.digest, good.digest]
    assert broker.health.counted("releases", "not fetched") == 1
    assert broker.releases.stored() == [good.digest]


async def test_parts_that_never_come_are_given_up_and_asked_for_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_fetch, "PATIENCE_S", 0.05)
    monkeypatch.setattr(release_fetch, "AGAIN_S", 0.05)
    made = release(broker.authority)
    async with broker.running():
        broker.fetch.want("LE-0001", made.digest)
        broker.fetch.want("LE-0002", OTHER)
        await until(lambda: len(broker.asked) >= 3)
        assert broker.asked[:3] == [made.digest, OTHER, made.digest]
        alarm = str(broker.health.snapshot()["releases"]["alarms"])
        assert "is not at the broker" in alarm
        broker.lay(made.digest, list(release_parts.parts_of(made.to_bytes())))
        await until(lambda: broker.releases.has(made.digest))
        broker.fetch.want("LE-0002", None)
    assert broker.health.snapshot()["releases"]["alarms"] == [] or OTHER.hex() in alarm


async def test_a_board_wants_one_release_at_a_time_however_many_it_names(broker: Broker) -> None:
    for number in range(1000):
        broker.fetch.want("LE-0001", number.to_bytes(16, "big"))
    broker.fetch.want("LE-0002", OTHER)
    async with broker.running():
        await until(lambda: len(broker.asked) == 1)
    assert len(broker.fetch._wanted) == 2


async def test_a_connection_that_ends_forgets_the_half_of_a_release(broker: Broker) -> None:
    made = release(broker.authority)
    head, part = release_parts.parts_of(made.to_bytes())
    broker.lay(made.digest, [head])
    broker.fetch.want("LE-0007", made.digest)
    async with broker.running():
        await until(lambda: len(broker.asked) == 1)
    broker.lay(made.digest, [head, part])
    broker.kept[made.digest] = broker.kept[made.digest][1:]
    async with broker.running():
        await until(lambda: len(broker.asked) == 2)
        assert not broker.releases.has(made.digest)
        broker.fetch.take(f"{made.digest.hex()}/0", head)
        await until(lambda: broker.releases.has(made.digest))


# With the gateway's process and a real broker ------------------------------------------------------------------------


async def publish(broker: Mosquitto, made: Release) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        for number, body in enumerate(release_parts.parts_of(made.to_bytes())):
            await client.publish(release_parts.topic(TENANT, made.digest, number), body, qos=1, retain=True)


@pytest.fixture
async def gateway(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> AsyncIterator[tuple[GatewayProcess, FakeBoard]]:
    board = quick(FakeBoard())
    process = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    yield process, board
    await process.end()


async def test_a_release_comes_from_the_broker_to_the_board_and_its_standing_goes_back(
    gateway: tuple[GatewayProcess, FakeBoard], mosquitto: Mosquitto, subscriber: Subscriber
) -> None:
    process, board = gateway
    made = release(process.authority)
    board.updates.stage(made)
    await process.start()
    await said(subscriber, lambda one: one["phase"] == "receiving" and one["fetching"] is True)
    assert not list((process.directory / "state" / "releases").glob("*"))
    await publish(mosquitto, made)
    await until(lambda: board.updates.staged is not None)
    last = await said(subscriber, lambda one: one["phase"] == "staged")
    assert last["staged"] == made.digest.hex()
    assert last["nonce"] == board.updates.nonce.hex()
    assert last["running"] is None
    assert [file.name for file in (process.directory / "state" / "releases").iterdir()] == [
        f"{made.digest.hex()}.laterne"
    ]
    assert await process.stop() == 0


async def said(subscriber: Subscriber, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """Waits for a standing that is so."""
    seen = 0
    while True:
        for message in subscriber.messages[seen:]:
            seen += 1
            if message.topic.value.endswith("/LE-0007/update"):
                assert isinstance(message.payload, bytes)
                found: dict[str, object] = json.loads(message.payload)
                if wanted(found):
                    return found
        await subscriber.news()


async def test_a_gateway_that_is_killed_during_an_update_goes_on_with_it(
    gateway: tuple[GatewayProcess, FakeBoard],
) -> None:
    process, board = gateway
    made = release(process.authority, contents(files=40))
    folder = process.directory / "state" / "releases"
    folder.mkdir()
    (folder / f"{made.digest.hex()}.laterne").write_bytes(made.to_bytes())
    board.updates.stage(made)
    board.close_reports(3)
    for blocks in (3, 8, 13):
        await process.start()
        await until(lambda: len(board.updates.blocks) >= blocks)  # noqa: B023 - awaited before it changes
        await process.kill()
        board.close_reports(1)
    await process.start()
    await until(lambda: board.updates.staged is not None)
    await board.forgets(6)
    files = [block[:2] for block in board.updates.blocks]
    assert len(files) == len(set(files)), "no block came twice"


async def test_an_update_from_the_order_to_its_confirmation(
    gateway: tuple[GatewayProcess, FakeBoard], mosquitto: Mosquitto, subscriber: Subscriber
) -> None:
    """As a campaign sees it: nonce, order to stage, staged, nonce, order to arm, trial, reports, idle again."""
    process, board = gateway
    made, kid = release(process.authority), board.key.kid
    await publish(mosquitto, made)
    topic = f"laterne/v1/{TENANT}/{process.authority.gateway}/order/LE-0007"

    async def ordered(action: int, argument: list[bytes | int]) -> None:
        body = process.authority.order("LE-0007", kid, action, argument)
        async with aiomqtt.Client("127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.publish(topic, body, qos=1, retain=True)

    await process.start()
    idle = await said(subscriber, lambda one: one["phase"] == "idle")
    await ordered(order.STAGE, [made.digest, 2, bytes.fromhex(str(idle["nonce"]))])
    staged = await said(subscriber, lambda one: one["phase"] == "staged")
    assert staged["nonce"] != idle["nonce"], "asked again after the order, so the next one can be made"
    await ordered(order.ARM, [made.digest, bytes.fromhex(str(staged["nonce"])), 4_000_000_000])
    await until(lambda: board.updates.armed)
    board.restart()
    trial = await said(subscriber, lambda one: one["phase"] == "trial")
    assert (trial["running"], trial["floor"]) == (made.digest.hex(), 1)
    board.close_reports(3)
    last = await said(subscriber, lambda one: one["phase"] == "idle" and one["running"] == made.digest.hex())
    assert (last["sequence"], last["floor"]) == (2, 2)
    assert board.acknowledged == 3
