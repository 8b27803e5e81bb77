"""A gateway's end of a line for tests of the real firmware: asks, checks every report with `cryptography`, remembers.

It stands in for nobody in the field: the gateway has its own code for this, and its own tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import serialx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from laterne_protocol import cose, credential, frame, messages, report, report_reading

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
    """Asks one board. reports: all that came, in order of arrival, each once, with its signature and chain checked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: int) -> None:
        self._reader = reader
        self._writer = writer
        self._address = address
        self._decoder = frame.FrameDecoder()
        self._number = 0
        self.sign_key = b""
        self.credential = b""
        self.reports: list[report.Report] = []
        self._head = b""
        self._tail = 0

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def ask(self, question: Callable[[int], Question]) -> Question:
        """The answer; the question is repeated until there is one."""
        self._number = (self._number + 1) % 256
        data = frame.Frame(frame.MESSAGE, self._address, frame.GATEWAY, question(self._number).to_bytes()).to_bytes()
        async with asyncio.timeout(WITHIN_S):
            while True:
                await self.send(b"\0" + data)
                try:
                    async with asyncio.timeout(REPEAT_AFTER_S):
                        return await self._answer()
                except TimeoutError:
                    continue

    async def _answer(self) -> Question:
        while True:
            for found in self._decoder.feed(await self._reader.read(4096)):
                assert found.destination == frame.GATEWAY
                answer = messages.message_of(found.payload)
                if answer.number == self._number:
                    return answer

    async def hello(self) -> messages.Identity:
        """Who is there, as soon as it has keys."""
        while True:
            answer = await self.ask(messages.Hello)
            assert isinstance(answer, messages.Identity)
            if answer.kid is not None:
                return answer
            await asyncio.sleep(0.02)

    async def enrol(self, board: str) -> None:
        """Prove, credential, enrolled: as a technician does."""
        await self.hello()
        nonce = b"a fresh nonce..."
        answer = await self.ask(lambda number: messages.Enrolment(number, messages.PROVE, nonce))
        assert isinstance(answer, messages.Enrolment)
        claims = credential.possession_of(cose.parse(answer.body, 1024).payload)
        verify(claims.sign_key, answer.body, cose.POSSESSION)
        assert claims.nonce == nonce
        self.sign_key = claims.sign_key
        self.credential = sign(cose.CREDENTIAL, self.credential_for(board, claims.sign_key, claims.agree_key))
        answer = await self.ask(lambda number: messages.Enrolment(number, messages.ENROL, self.credential))
        assert isinstance(answer, messages.Enrolment)
        assert answer.step == messages.ENROLLED
        assert answer.body == self._head_of_chain()
        self._head = answer.body

    def _head_of_chain(self) -> bytes:
        return credential.digest(self.credential)

    @staticmethod
    def credential_for(board: str, sign_key: bytes, agree_key: bytes) -> bytes:
        return credential.Credential(
            "test", board, 1_700_000_000, b"number-1", sign_key, agree_key, credential.SOFTWARE, "emulated", (1, 9)
        ).to_payload()

    async def poll(self, time: tuple[int, int, int] | None = None) -> messages.ReportAnswer:
        """One poll; a report that comes is checked and acknowledged by the next poll."""
        last = self._tail
        answer = await self.ask(lambda number: messages.Poll(number, last, last, time))
        assert isinstance(answer, messages.ReportAnswer), answer
        if answer.report is not None:
            self._take(answer.report)
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
                if answer.report is None:
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
