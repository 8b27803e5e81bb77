"""A gateway's end of a line for tests of the real firmware: asks, checks every report with `cryptography`, remembers.

It stands in for nobody in the field: the gateway has its own code for this, and its own tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import serialx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from tests.firmware.initiator import GatewayEnd, now_ms, session_of, take
from tests.gateway.fake_authority import FakeAuthority

from laterne_protocol import cose, credential, edhoc, edhoc_keys, frame, messages, report, report_reading, trust
from laterne_protocol.session import Session

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ENROLMENT_KEY = ec.derive_private_key(0x1A7E27E, ec.SECP256R1())
REPEAT_AFTER_S = 0.5  # a board that writes flash may miss a question
Question = Any  # a message of laterne_protocol.messages: MicroPython has no unions
WITHIN_S = 20.0  # a bound for what would hang, not a time that is tested


def verify(key: bytes, signed: bytes, domain: str) -> bytes:
    """The payload of an object, its signature checked with the public key (64 bytes). Raises CoseError."""
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big"), ec.SECP256R1()
    )

    def valid(message: bytes, signature: bytes) -> bool:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            numbers.public_key().verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    return cose.verify(cose.parse(signed, 1024), domain, valid)


def sign(domain: str, payload: bytes) -> bytes:
    """An object signed by the test's enrolment key."""
    protected = cose.protected_header(b"enrolkey")
    r, s = decode_dss_signature(ENROLMENT_KEY.sign(cose.to_be_signed(domain, protected, payload), ec.ECDSA(SHA256())))
    return cose.assemble(protected, payload, r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big"))


class Asker:
    """Asks one board: in the clear until it has enrolled it, then in a session, made when there is none.

    reports: all that came, in order of arrival, each once, with its signature and chain checked.
    authority: who signs trust and gateways. gateway: who we are. board: the other party, once enrolled.
    session: None makes the next question begin with a handshake. handshakes: how often hands were shaken.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: int) -> None:
        self._reader = reader
        self._writer = writer
        self._address = address
        self._decoder = frame.FrameDecoder()
        self._number = 0
        self.authority = FakeAuthority()
        self.gateway = GatewayEnd(self.authority)
        self.board: edhoc_keys.Party | None = None
        self.session: Session | None = None
        self.handshakes = 0
        self.name = ""
        self.sign_key = b""
        self.credential = b""
        self.reports: list[report.Report] = []
        self._head = b""
        self._tail = 0

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def hear(self, noise: bytes) -> None:
        """As if this had come over the line before whatever comes next."""
        self._decoder.feed(noise)

    async def ask(self, question: Callable[[int], Question]) -> Question:
        """The answer; the question is repeated until there is one."""
        self._number = (self._number + 1) % 256
        message = question(self._number).to_bytes()
        async with asyncio.timeout(WITHIN_S):
            while True:
                if self.board is not None and self.session is None:
                    await self.shake_hands()
                received = await self.exchange(self.sealed(message) if self.session else self.clear(message))
                if received is None or received.kind == frame.HANDSHAKE:  # an answer to what a stranger asked
                    continue
                answer = messages.message_of(self.opened(received) if self.session else received.payload)
                if isinstance(answer, messages.Refusal) and answer.number == 0 and self.session:
                    self.session = None  # it was reset, and has no session any more
                elif answer.number == self._number:
                    return answer

    async def ask_in_the_clear(self, question: Question) -> Question:
        """The answer to a question that is asked once without a session; None when there is none."""
        received = await self.exchange(self.clear(question.to_bytes()))
        return None if received is None else messages.message_of(received.payload)

    def clear(self, message: bytes) -> frame.Frame:
        return frame.Frame(frame.MESSAGE, self._address, frame.GATEWAY, message)

    def sealed(self, message: bytes) -> frame.Frame:
        """The frame that carries a message in the session."""
        assert self.session is not None
        header = frame.header(frame.RECORD, self._address, frame.GATEWAY)
        record = self.session.seal(header, message, now_ms())
        return frame.Frame(frame.RECORD, self._address, frame.GATEWAY, record)

    def opened(self, received: frame.Frame) -> bytes:
        """The message in a record; the message itself when it came in the clear."""
        if received.kind == frame.MESSAGE:
            return received.payload
        assert self.session is not None
        header = frame.header(received.kind, received.destination, received.source)
        return self.session.open(header, received.payload, now_ms())

    async def exchange(self, sent: frame.Frame, within_s: float = REPEAT_AFTER_S) -> frame.Frame | None:
        """Sends a frame; the next one that comes, None when none comes in time."""
        await self.send(b"\0" + sent.to_bytes())
        try:
            async with asyncio.timeout(within_s):
                while True:
                    for found in self._decoder.feed(await self._reader.read(4096)):
                        assert found.destination == frame.GATEWAY
                        return found
        except TimeoutError:
            return None

    async def step(self, step: int, body: bytes, *, repeated: bool = True) -> tuple[int, bytes] | None:
        """A step of a handshake and its answer; asked again until there is one, or, not repeated, once."""
        sent = frame.Frame(frame.HANDSHAKE, self._address, frame.GATEWAY, bytes((step,)) + body)
        async with asyncio.timeout(WITHIN_S):
            while True:
                received = await self.exchange(sent)
                if received is not None and received.kind == frame.HANDSHAKE:
                    if received.payload[0] == edhoc.INTRODUCED and step != edhoc.INTRODUCTION:
                        continue  # late: the introduction was asked for twice
                    return received.payload[0], received.payload[1:]
                if not repeated:
                    return None

    async def introduce(self) -> None:
        assert await self.step(edhoc.INTRODUCTION, self.gateway.credential) == (
            edhoc.INTRODUCED,
            self.gateway.party.kid,
        )

    async def handshake(self) -> edhoc.Initiator:
        """Introduction and all four messages; the session is not yet used."""
        assert self.board is not None
        await self.introduce()
        made = self.gateway.handshake(self.board)
        message = take(made, edhoc.START)
        for sent, came in ((edhoc.MESSAGE_1, edhoc.MESSAGE_2), (edhoc.MESSAGE_3, edhoc.MESSAGE_4)):
            answer = await self.step(sent, message)
            assert answer is not None
            assert answer[0] == came, answer
            message = take(made, came, answer[1])
        self.handshakes += 1
        return made

    async def shake_hands(self) -> None:
        """A new session, used from now on."""
        self.session = session_of(await self.handshake(), self._at)

    @property
    def _at(self) -> int:
        return frame.FIRST_BOARD if self._address == frame.ANY_BOARD else self._address

    async def hello(self) -> messages.Identity:
        """Who is there, as soon as it has keys."""
        while True:
            answer = await self.ask(messages.Hello)
            assert isinstance(answer, messages.Identity)
            if answer.kid is not None:
                return answer
            await asyncio.sleep(0.02)

    async def enrol(self, board: str) -> None:
        """Prove, trust, credential, enrolled: as a technician does."""
        await self.hello()
        nonce = b"a fresh nonce..."
        answer = await self.ask(lambda number: messages.Enrolment(number, messages.PROVE, nonce))
        assert isinstance(answer, messages.Enrolment)
        claims = credential.possession_of(cose.parse(answer.body, 1024).payload)
        verify(claims.sign_key, answer.body, cose.POSSESSION)
        assert claims.nonce == nonce
        self.name, self.sign_key = board, claims.sign_key
        self.credential = sign(cose.CREDENTIAL, self.credential_for(board, claims.sign_key, claims.agree_key))
        await self.give_trust(self.authority.trust_file())
        answer = await self.ask(lambda number: messages.Enrolment(number, messages.ENROL, self.credential))
        assert isinstance(answer, messages.Enrolment)
        assert answer.step == messages.ENROLLED
        assert answer.body == self._head_of_chain()
        self._head = answer.body
        self.board = edhoc_keys.party(board, claims.agree_key)

    def follow(self, head: bytes) -> None:
        """The next report is the first one after this digest."""
        self._head = head

    async def give_trust(self, trust_file: bytes) -> None:
        """Tells the board whom to believe, in a session if there is one; it says what it has taken."""
        bundle = trust.pack(trust_file)
        async with asyncio.timeout(WITHIN_S):
            while True:
                answer = await self.ask(lambda number: messages.Enrolment(number, messages.TRUST, bundle))
                if not isinstance(answer, messages.Refusal) or answer.reason != messages.NOT_READY:
                    break
        assert isinstance(answer, messages.Enrolment), answer.reason
        assert answer.body == trust.digest(trust.unpack(bundle)[0].payload)

    def _head_of_chain(self) -> bytes:
        return credential.digest(self.credential)

    @staticmethod
    def credential_for(board: str, sign_key: bytes, agree_key: bytes) -> bytes:
        return credential.Credential(
            "test", board, 1_700_000_000, b"number-1", sign_key, agree_key, credential.SOFTWARE, "emulated", (1, 9)
        ).to_payload()

    async def poll(self, time: tuple[int, int, int] | None = None) -> messages.ReportAnswer:
        """One poll; the first report that comes is checked and acknowledged by the next poll."""
        last = self._tail
        answer = await self.ask(lambda number: messages.Poll(number, last, last, time))
        assert isinstance(answer, messages.ReportAnswer), answer
        if answer.reports:
            self._take(answer.reports[0])
        return answer

    def _take(self, signed: bytes) -> None:
        payload = verify(self.sign_key, signed, cose.REPORT)
        found = report_reading.report_of(payload)
        assert found.sequence > self._tail
        stated = {number for first, last, _ in found.gaps for number in range(first, last + 1)}
        if found.sequence == self._tail + 1:
            assert found.previous == self._head, f"report {found.sequence} does not follow"
        else:
            assert stated >= set(range(self._tail + 1, found.sequence)), f"nothing says why {found.sequence} comes next"
        self.reports.append(found)
        self._tail, self._head = found.sequence, report.digest(payload)

    async def wait_for_reports(self, count: int) -> list[report.Report]:
        """Polls until `count` reports more are here, and returns those."""
        wanted = len(self.reports) + count
        async with asyncio.timeout(WITHIN_S + 6 * count):
            while len(self.reports) < wanted:
                answer = await self.poll()
                if not answer.reports:
                    await asyncio.sleep(min(0.2, answer.due_ms / 1000))
        return self.reports[-count:]


@asynccontextmanager
async def asking(port: Path, address: int = frame.ANY_BOARD) -> AsyncIterator[Asker]:
    """An Asker on a line's port."""
    reader, writer = await serialx.open_serial_connection(str(port), baudrate=115200)
    try:
        yield Asker(reader, writer, address)
    finally:
        writer.close()


@asynccontextmanager
async def enrolled(
    emulated_boards: Benches, settings: Mapping[str, object], name: str = "board-01"
) -> AsyncIterator[tuple[EmulatedBoard, Asker]]:
    """One emulated board with the real firmware, enrolled by the Asker on its line; the line is not paced."""
    bench = await emulated_boards(settings=settings, paced=False)
    async with asking(bench.lines[name].path) as asker:
        await asker.enrol(name)
        yield bench.boards[name], asker
