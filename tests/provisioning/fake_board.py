"""A board in Python: real keys, the real protocol, a real PTY. It does to enrolment what the firmware does.

It can stop at any message, before or after it has acted on it, so that the asking command can be killed there.
"""

import os
import pty
import select
import threading
import tty
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from laterne_protocol import cose, credential, frame, messages, report, trust
from laterne_protocol.errors import MessageError

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
WAIT_S = 60.0  # for a command to get somewhere: processes start slowly on a loaded machine


class Key:
    """A P-256 key that signs as a board does."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        numbers = self._private.public_key().public_numbers()
        self.public = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    def pem(self) -> bytes:
        """The private key as a file holds it, not encrypted."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, message: bytes) -> bytes:
        r, s = utils.decode_dss_signature(self._private.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")

    def sign_object(self, domain: str, payload: bytes, kid: bytes | None = None) -> bytes:
        protected = cose.protected_header(credential.kid(self.public) if kid is None else kid)
        return cose.assemble(protected, payload, self.sign(cose.to_be_signed(domain, protected, payload)))


class FakeBoard:
    """A board on a PTY. port: where the command finds it. Use it in a `with`."""

    def __init__(self, key: Key | None = None) -> None:
        self.key = key or Key()
        self.agree_key = Key()
        self.board: str | None = None
        self.credential: bytes | None = None
        self.model = "pico"
        self.asked: list[str] = []  # the kinds of messages received, repetitions of one question left out
        self.trust: bytes | None = None  # the payload that it was told
        self.speaks_clearly = False  # as firmware without sessions does
        self.says_kid = True
        self.forget_digest = False
        self.nonce_instead: bytes | None = None
        self.signs_with: Key | None = None
        self.silent = False
        self.babble = b""
        self.lose_answers = 0
        self.busy_answers = 0
        self.stop_at: tuple[int, bool] | None = None  # (message, whether it is acted on before stopping)
        self.stopped = threading.Event()
        self._numbers: set[tuple[str, int]] = set()
        self._sequence = 0
        self.boot = 1
        self._previous = b""
        self._decoder = frame.FrameDecoder()
        self._end_r, self._end_w = os.pipe()
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def kid(self) -> bytes:
        return credential.kid(self.key.public)

    def __enter__(self) -> "FakeBoard":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        os.write(self._end_w, b"x")
        self._thread.join(WAIT_S)
        for descriptor in (self._end_r, self._end_w, self._master, self._slave):
            os.close(descriptor)

    def go_on(self) -> None:
        """Answer again after a stop."""
        self.stop_at = None
        self.asked.clear()
        self._numbers.clear()
        self.stopped.clear()

    def next_report(
        self,
        values: list[int] | None = None,
        gaps: list[list[int]] | None = None,
        cut_ms: int = 0,
        release: tuple[bytes, bool] | None = None,
        closed_ms: int | None = None,
        clock: tuple[int, int | None, int] | None = None,
    ) -> bytes:
        """The next signed report of this board, which must be enrolled. values: temperatures, 1/100 degree."""
        assert self.board is not None
        assert self.credential is not None
        self._sequence += 1
        if self._sequence == 1:
            self._previous = credential.digest(self.credential)
        writer = report.ColumnWriter(1)
        for value in [2130, 2131, 2129] if values is None else values:
            writer.add(value)
        taken = [1000 * index for index in range(writer.count)]
        payload = report.Report(
            self.board,
            self._sequence,
            self._previous,
            self.boot,
            60_000 * self._sequence if closed_ms is None else closed_ms,
            clock or (report.SET, 1_790_000_000_000 + 60_000 * self._sequence, 5),
            report.times_of(taken, 60_000),
            [report.Column(writer.channel, bytes(writer.packed), writer.quality)] if writer.count else [],
            gaps or [],
            cut_ms,
            release,
        ).to_payload()
        self._previous = report.digest(payload)
        return self.key.sign_object(cose.REPORT, payload)

    @property
    def last_sequence(self) -> int:
        """Of its newest report; 0 when there is none."""
        return self._sequence

    def skip_reports(self, count: int) -> None:
        """Take that many reports that nobody will ever see."""
        for _ in range(count):
            self.next_report()

    def _serve(self) -> None:
        if self.babble:
            os.write(self._master, self.babble)
        while True:
            ready, _, _ = select.select([self._master, self._end_r], [], [])
            if self._end_r in ready:
                return
            for received in self._decoder.feed(os.read(self._master, 4096)):
                try:
                    message = messages.message_of(received.payload)
                except MessageError:
                    continue
                self._take(message)

    def _take(self, message: "messages.Message") -> None:
        kind = type(message).__name__
        if isinstance(message, messages.Enrolment):
            kind = {messages.PROVE: "Prove", messages.TRUST: "Trust", messages.ENROL: "Enrol"}.get(
                message.step, "an answer"
            )
        if (kind, message.number) not in self._numbers:
            self._numbers.add((kind, message.number))
            self.asked.append(kind)
        if self.silent:
            return
        stop = self.stop_at is not None and len(self.asked) >= self.stop_at[0]
        if stop and self.stop_at is not None and not self.stop_at[1]:
            self.stopped.set()
            return
        answer = self._answer(message)
        if stop:
            self.stopped.set()
            return
        if self.lose_answers:
            self.lose_answers -= 1
            return
        os.write(self._master, frame.DELIMITER + frame.Frame(frame.MESSAGE, frame.GATEWAY, 1, answer).to_bytes())

    def _enrol_again(self, number: int) -> bytes:
        return messages.Enrolment(number, messages.ENROL, self.credential or b"").to_bytes()

    def _answer(self, message: "messages.Message") -> bytes:
        number = message.number
        if self.board is not None and not self.speaks_clearly:
            enrol = isinstance(message, messages.Enrolment) and message.step == messages.ENROL
            if not enrol or message.to_bytes() != self._enrol_again(number):
                return messages.Refusal(number, messages.SESSION_NEEDED).to_bytes()
        if isinstance(message, messages.Hello):
            kid = self.kid if self.says_kid else None
            self.says_kid = True  # the keys are ready when it is asked again
            return messages.Identity(number, self.board, kid, 1, "0.1.0", self.model).to_bytes()
        if self.busy_answers:
            self.busy_answers -= 1
            return messages.Refusal(number, messages.NOT_READY).to_bytes()
        if isinstance(message, messages.Enrolment) and message.step == messages.PROVE:
            if self.board is not None:
                return messages.Refusal(number, messages.ALREADY_ENROLLED).to_bytes()
            nonce = self.nonce_instead or message.body
            payload = credential.Possession(
                nonce, self.key.public, self.agree_key.public, credential.SOFTWARE, self.model, b"\x01\x02\x03\x04"
            ).to_payload()
            signer = self.signs_with or self.key
            proof = signer.sign_object(cose.POSSESSION, payload, self.kid)
            return messages.Enrolment(number, messages.POSSESSION, proof).to_bytes()
        if isinstance(message, messages.Enrolment) and message.step == messages.TRUST:
            self.trust = trust.unpack(message.body)[0].payload
            return messages.Enrolment(number, messages.TRUST_TAKEN, trust.digest(self.trust)).to_bytes()
        if isinstance(message, messages.Enrolment) and message.step == messages.ENROL:
            if self.trust is None:
                return messages.Refusal(number, messages.NOT_READY).to_bytes()
            if self.credential is not None and self.credential != message.body:
                return messages.Refusal(number, messages.ALREADY_ENROLLED).to_bytes()
            claims = credential.credential_of(cose.parse(message.body, 512).payload)
            if claims.sign_key != self.key.public:
                return messages.Refusal(number, messages.CREDENTIAL_REFUSED).to_bytes()
            self.board, self.credential = claims.board, message.body
            digest = bytes(16) if self.forget_digest else credential.digest(message.body)
            return messages.Enrolment(number, messages.ENROLLED, digest).to_bytes()
        return messages.Refusal(number, messages.NOT_ENROLLED).to_bytes()
