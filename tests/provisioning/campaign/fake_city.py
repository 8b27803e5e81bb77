"""Gateways with boards that take updates, as `laterne campaign` meets them: at a real broker, with real signatures.

Each board signs a report each REPORT_S, its gateway tells of its update, orders do what protocol/README.md, 12.6 says.
`crashes` and `silent` name boards on which the new release does so.
"""

import json
import threading
from dataclasses import dataclass, field
from types import TracebackType

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from tests.provisioning.fake_board import WAIT_S, FakeBoard
from tests.servers import Mosquitto

from laterne_protocol import cose, order, receipt, release_file, release_parts

TENANT, GATEWAY = "city", "gw-1"
PREFIX = f"laterne/v1/{TENANT}/{GATEWAY}"
REPORT_S = 0.1
OLD = bytes(range(16))


@dataclass
class Post:
    """One board as its gateway sees it. confirmed: the release that it keeps."""

    board: FakeBoard
    running: bytes = OLD
    confirmed: bytes = OLD
    staged: bytes | None = None
    trial: bool = False
    fetching: int = 0
    healthy: int = 0
    reports: int = 0
    result: list[object] | None = None
    says: bool = True
    counter: int = 0
    done: tuple[bytes, bytes] = (b"", b"")
    actions: list[int] = field(default_factory=list)

    @property
    def nonce(self) -> bytes:
        return self.board.boot.to_bytes(4, "big") + len(self.actions).to_bytes(4, "big")


class FakeCity:
    """Use it in a `with`. boards: enrolled. crashes, silent: ids of boards for which a new release is bad."""

    def __init__(self, broker: Mosquitto, boards: list[FakeBoard]) -> None:
        self.posts = {board.board or "": Post(board) for board in boards}
        self.crashes: set[str] = set()
        self.silent: set[str] = set()
        self.deaf: set[str] = set()
        self.lies: list[tuple[str, bytes]] = []  # (topic, body): what others write at the broker, one after the other
        self.fetches_for = 3  # reports
        self.orders: list[tuple[str, order.Order]] = []
        self.release: release_file.Release | None = None
        self._parts: dict[int, bytes] = {}
        self.turn = threading.Lock()
        self._stop = threading.Event()
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "fake-city", protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", broker.port)
        self._living = threading.Thread(target=self._live)

    def __enter__(self) -> "FakeCity":
        self._client.publish(f"{PREFIX}/status", '{"state": "online"}', 1, True)
        self._client.subscribe([(f"{PREFIX}/order/+", 1), (f"laterne/v1/{TENANT}/release/+/+", 1)])
        self._client.loop_start()
        assert self._subscribed.wait(WAIT_S)
        self._living.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._living.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _live(self) -> None:
        while not self._stop.wait(REPORT_S):
            with self.turn:
                for name, post in self.posts.items():
                    if name not in self.deaf:
                        self._report(name, post)
                        self._tell(name, post)

    def _report(self, name: str, post: Post) -> None:
        if post.trial and post.healthy >= 3:
            post.trial, post.confirmed, post.says = False, post.running, True
        release = (post.running[:8], post.trial) if post.says else None
        post.says = False
        is_new = self.release is not None and post.running == self.release.digest
        if name in self.crashes and is_new:
            # Three starts, and it is back.
            post.running = post.confirmed = OLD
            post.trial, post.says, post.result = False, True, [3, self._digest.hex()]
            post.board.boot += 3
            return
        values: list[int] | None = [] if name in self.silent and is_new else None
        body = post.board.next_report(values, release=release, closed_ms=60_000 * post.reports)
        post.reports += 1
        post.healthy += post.trial
        self._client.publish(f"{PREFIX}/{name}/report", body, 1)

    def _tell(self, name: str, post: Post) -> None:
        post.fetching = max(0, post.fetching - 1)
        if post.fetching == 1:
            post.staged = self._digest
        phase = "trial" if post.trial else "staged" if post.staged else "receiving" if post.fetching else "idle"
        document = {
            "phase": phase,
            "running": post.running.hex(),
            "sequence": 1,
            "floor": 1,
            "nonce": post.nonce.hex(),
            "staged": None if post.staged is None else post.staged.hex(),
            "result": post.result,
            "wanted": None,
            "share": 0.5 if phase == "receiving" else None,
        }
        if self.lies:
            self._client.publish(*self.lies[0], 1)
            self.lies = self.lies[1:] + self.lies[:1]
        self._client.publish(f"{PREFIX}/{name}/update", json.dumps(document), 1, True)

    @property
    def _digest(self) -> bytes:
        assert self.release is not None
        return self.release.digest

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        levels, body = message.topic.split("/"), bytes(message.payload)
        if not body:
            return
        with self.turn:
            if levels[3] == "release":
                self._take_part(int(levels[5]), body)
            else:
                name = levels[5]
                if name in self.posts and name not in self.deaf:
                    client.publish(f"{PREFIX}/{name}/receipt", self._obey(name, self.posts[name], body), 1, True)

    def _take_part(self, number: int, body: bytes) -> None:
        self._parts[number] = body
        if number == 0:
            count, size, _ = release_parts.head_of(self._parts[0])
            whole = b"".join(self._parts[one] for one in range(1, count + 1))
            assert len(whole) == size, "the head comes last"
            self.release = release_file.release_of(whole)

    def _obey(self, name: str, post: Post, body: bytes) -> bytes:
        if post.done[0] == body:
            return post.done[1]
        said = order.order_of(cose.parse(body, order.MAX_ORDER_BYTES).payload)
        self.orders.append((name, said))
        assert (said.board, said.kid) == (name, post.board.kid)
        assert isinstance(said.argument, list)
        reason = self._refusal(post, said)
        if reason is None:
            post.counter = said.counter
            post.actions.append(said.action)
            if said.action == order.STAGE:
                assert self.release is not None, "ordered before it is there"
                post.fetching = self.fetches_for
            elif said.action == order.ARM:
                post.board.boot += 1
                post.running, post.staged, post.trial, post.says, post.healthy = self._digest, None, True, True, 0
                post.reports = 0
            elif post.trial:
                post.board.boot += 1
                post.running, post.trial, post.says, post.result = OLD, False, True, [5, self._digest.hex()]
            else:
                post.staged, post.fetching = None, 0
        answer = receipt.Receipt(
            name, order.digest(body), 0 if reason is None else 1, reason, post.board.last_sequence, None
        )
        post.done = (body, post.board.key.sign_object(cose.RECEIPT, answer.to_payload()))
        return post.done[1]

    def _refusal(self, post: Post, said: order.Order) -> int | None:
        assert isinstance(said.argument, list)
        if said.counter <= post.counter:
            return receipt.OLD
        nonce = {order.STAGE: 2, order.ARM: 1}.get(said.action)
        if nonce is not None and said.argument[nonce] != post.nonce:
            return receipt.OLD_NONCE
        if said.action == order.ARM and post.staged != said.argument[0]:
            return receipt.NOT_STAGED
        return None
