"""A gateway with one board, as the operator's commands meet them: orders and receipts at a real broker.

The board does to orders what protocol/README.md, 12 says, with real keys. It can be told to forge, to refuse, and to
be away.
"""

import threading
from types import TracebackType

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.provisioning.fake_board import WAIT_S, FakeBoard, Key
from tests.servers import Mosquitto

from laterne_protocol import cose, credential, order, receipt

TENANT, GATEWAY = "city", "gw-1"
PREFIX = f"laterne/v1/{TENANT}/{GATEWAY}"


class FakeGateway:
    """Use it in a `with`. board: enrolled. executed: the actions that the board has done, one by one."""

    def __init__(self, broker: Mosquitto, board: FakeBoard, last: int = 7) -> None:
        assert board.board is not None
        self.board = board
        self.last = last  # the sequence that the board names
        self.executed: list[int] = []
        self.orders: list[bytes] = []
        self.silent = False
        self.refuses: int | None = None
        self.signs_with: Key | None = None  # instead of the board's key
        self.proves_with: Key | None = None  # instead of the next key
        self.other_hardware = False
        self.notes = True  # says that the board knows that its receipt has arrived
        self.next: tuple[Key, Key] | None = None
        self.formers: list[Key] = []
        self.got_order = threading.Event()
        self._counter = 0
        self._done: tuple[bytes, bytes] = (b"", b"")  # the order executed last, its receipt
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "fake-gateway", protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", broker.port)

    def __enter__(self) -> "FakeGateway":
        self._client.publish(f"{PREFIX}/status", '{"state": "online"}', 1, True)
        self._client.subscribe(f"{PREFIX}/order/+", 1)
        self._client.loop_start()
        assert self._subscribed.wait(WAIT_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, body: bytes, noted: bool = False) -> None:
        """A receipt, true or false."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's has no types
        properties.UserProperty = [("noted", "true" if noted else "false")]
        self._client.publish(f"{PREFIX}/{self.board.board}/receipt", body, 1, True, properties)

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        body = bytes(message.payload)
        if not body:
            return
        self.orders.append(body)
        self.got_order.set()
        if self.silent:
            return
        answer = self._done[1] if self._done[0] == body else self._answer(body)
        self.publish(answer)
        if self.notes:
            self.publish(answer, True)

    def _answer(self, body: bytes) -> bytes:
        found = order.order_of(cose.parse(body, order.MAX_ORDER_BYTES).payload)
        former, reason, result = self.board.key, self.refuses, None
        if reason is None and found.kid != credential.kid(former.public):
            reason = receipt.OTHER_KEY
        if reason is None and found.counter <= self._counter:
            reason = receipt.OLD
        if reason is None:
            result = self._execute(found, body)
            self._counter = found.counter
            self.executed.append(found.action)
        outcome = receipt.DONE if reason is None else receipt.REFUSED
        said = receipt.Receipt(found.board, order.digest(body), outcome, reason, self.last, result)
        answer = (self.signs_with or former).sign_object(cose.RECEIPT, said.to_payload())
        if reason is None:
            self._done = (body, answer)
        return answer

    def _execute(self, found: order.Order, body: bytes) -> bytes | int | None:
        if found.action == order.ROTATE:
            sign, agree = self.next = self.next or (Key(), Key())
            hardware = b"\x09" if self.other_hardware else b"\x01\x02\x03\x04"
            proof = credential.Possession(order.digest(body), sign.public, agree.public, 0, "pico", hardware)
            signer = self.proves_with or sign
            return signer.sign_object(cose.POSSESSION, proof.to_payload(), credential.kid(sign.public))
        if found.action == order.TAKE:
            assert self.next is not None
            assert isinstance(found.argument, bytes)
            claims = credential.credential_of(cose.parse(found.argument, credential.MAX_CREDENTIAL_BYTES).payload)
            assert (claims.sign_key, claims.agree_key) == (self.next[0].public, self.next[1].public)
            self.formers.append(self.board.key)
            self.board.key, self.board.agree_key = self.next
            self.board.credential, self.next = found.argument, None
            return None
        return self.last
