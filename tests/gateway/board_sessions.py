"""The board's end of sessions, with the real Responder on CPython and the rules of protocol/README.md, 9.4 and 10.6.

It moves no bytes: receive() is given a frame and gives the answer, or None. What takes a board seconds takes
`thinks_s` here: the answer is kept until the same question comes again after that time.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from tests.protocol.edhoc_primitives import PRIMITIVES, agree, run

from laterne_gateway import primitives
from laterne_protocol import cose, credential, edhoc, edhoc_keys, frame, gateway_credential, messages, session, trust
from laterne_protocol.edhoc_messages import EdhocError, connections
from laterne_protocol.errors import MessageError, WireError
from laterne_protocol.frame import Frame
from laterne_protocol.session import RecordError, Session, SessionError

MAX_GATEWAY_BYTES = gateway_credential.MAX_GATEWAY_CREDENTIAL_BYTES


class Bucket:
    """At most `size` at once, and one more every refill_s."""

    def __init__(self, size: float = 4.0, refill_s: float = 30.0) -> None:
        self.size = size
        self.refill_s = refill_s
        self._level = size
        self._at_s = 0.0

    def take(self, now_s: float) -> bool:
        self._level = min(self.size, self._level + (now_s - self._at_s) / self.refill_s)
        self._at_s = now_s
        if self._level < 1:
            return False
        self._level -= 1
        return True


class BoardSessions:
    """name, agree_private: of the board. counts: what was done and refused. opened: how often a session began."""

    def __init__(self, name: str, agree_private: bytes, agree_public: bytes, address: int) -> None:
        self.trust: trust.Trust | None = None
        self.bucket = Bucket()
        self.replace_after_s = 10.0
        self.thinks_s = 0.0
        self.judging = 0  # so often it says that it has not yet judged a trust
        self.signatures: list[int] = []  # how many came with each trust that was taken
        self.leaving = False  # the session of a gateway that is not believed any more carries newer trusts only
        self.counts: Counter[str] = Counter()
        self.session: Session | None = None
        self.made: Session | None = None  # of the last handshake, until its first record opens
        self._own = edhoc_keys.party(name, agree_public)
        self._private = agree_private
        self._address = address
        self._gateway: edhoc_keys.Party | None = None
        self._known = b""  # the stored gateway credential
        self._handshake: edhoc.Responder | None = None
        self._stepped_s = 0.0
        self._kept: tuple[bytes, float, bytes] | None = None  # question, when its answer is ready, answer
        self._connection = random.randrange(48)

    @property
    def kid(self) -> bytes:
        """Of the agreement key."""
        return self._own.kid

    def held(self) -> tuple[int, bytes] | None:
        """The trust that it holds, as it tells it."""
        return None if self.trust is None else (self.trust.version, trust.digest(self.trust.to_payload()))

    def judge_trust(self, question: messages.Enrolment) -> "messages.Message":
        """As the firmware: a newer trust replaces the one held, and a gateway that it does not believe is forgotten."""
        assert self.trust is not None
        if self.judging:
            self.judging -= 1
            return messages.Refusal(question.number, messages.NOT_READY)
        try:
            signed = trust.unpack(question.body)
            file = trust.trust_file([cose.assemble(one.protected, one.payload, one.signature) for one in signed])
            self.trust = trust.trust_of(file, primitives.valid, self.trust)
        except WireError:
            self.counts["trusts refused"] += 1
            return messages.Refusal(question.number, messages.CREDENTIAL_REFUSED)
        self.counts["trusts taken"] += 1
        self.signatures.append(len(signed))
        try:
            self._verified(self._known)
        except WireError:
            self._known, self._gateway, self.made, self.leaving = b"", None, None, True
        return messages.Enrolment(question.number, messages.TRUST_TAKEN, trust.digest(self.trust.to_payload()))

    def restart(self) -> None:
        """What lies in RAM is gone."""
        self.session = self.made = self._handshake = self._kept = None

    def receive(self, asked: Frame, now_s: float, answer: Callable[[bytes], bytes | None]) -> Frame | None:
        """answer: what the board says to a message in a session."""
        if asked.kind == frame.HANDSHAKE:
            payload = self._handshake_answer(asked.payload, now_s)
            return None if payload is None else Frame(frame.HANDSHAKE, asked.source, self._address, payload)
        if asked.kind == frame.RECORD:
            return self._record(asked, now_s, answer)
        try:
            number = messages.message_of(asked.payload).number
        except MessageError:
            return None
        refusal = messages.Refusal(number, messages.SESSION_NEEDED).to_bytes()
        return Frame(frame.MESSAGE, asked.source, self._address, refusal)

    def _handshake_answer(self, payload: bytes, now_s: float) -> bytes | None:
        if self._kept is not None and self._kept[0] == payload:
            return self._kept[2] if now_s >= self._kept[1] else None
        if self._kept is not None and now_s < self._kept[1]:
            self.counts["busy"] += 1
            return None
        made = self._step(payload[0], payload[1:], now_s)
        if made is None:
            return None
        self._stepped_s = now_s
        thinks_s = 0.0 if made[0] == edhoc.INTRODUCED and self.counts["verified"] == 0 else self.thinks_s
        self._kept = (payload, now_s + thinks_s, made)
        return None if thinks_s else made

    def _step(self, step: int, body: bytes, now_s: float) -> bytes | None:
        if step == edhoc.INTRODUCTION:
            return self._introduced(body, now_s)
        if step not in (edhoc.MESSAGE_1, edhoc.MESSAGE_3):
            self.counts["errors" if step == edhoc.ERROR else "unknown steps"] += 1
            return None
        if step == edhoc.MESSAGE_1 and not self._begins(now_s):
            return None
        if self._handshake is None:
            return None
        try:
            answer = run(self._handshake.take(step, body))
        except EdhocError as why:
            self.counts["handshakes failed"] += 1
            self._handshake = None
            return bytes((edhoc.ERROR,)) + why.answer if why.answer else None
        except MessageError:
            return None
        if step == edhoc.MESSAGE_3:
            self.made = session.session_of(self._handshake, session.BOARD, self._address, int(now_s * 1000))
        return bytes((step + 1,)) + answer

    def _introduced(self, body: bytes, now_s: float) -> bytes | None:
        if body != self._known:
            if self.trust is None or not self._spend(now_s):
                return None
            try:
                found = self._verified(body)
            except WireError:
                self.counts["introductions refused"] += 1
                return None
            self.counts["verified"] += 1
            self._known = body
            self._gateway = edhoc_keys.party(found.gateway, found.agree_key)
        assert self._gateway is not None
        return bytes((edhoc.INTRODUCED,)) + self._gateway.kid

    def _verified(self, body: bytes) -> gateway_credential.GatewayCredential:
        assert self.trust is not None
        signed = cose.parse(body, MAX_GATEWAY_BYTES)
        for key in self.trust.keys[trust.ROSTER]:
            if credential.kid(key) == signed.kid:
                payload = cose.verify(signed, cose.GATEWAY, partial(primitives.valid, key))
                found = gateway_credential.gateway_credential_of(payload)
                if found.is_valid_under(self.trust.version):
                    return found
        raise WireError("not a gateway of ours")

    def _begins(self, now_s: float) -> bool:
        if self._gateway is None:
            return False
        if self._handshake is not None and now_s - self._stepped_s < self.replace_after_s:
            self.counts["message_1 while a handshake is under way"] += 1
            return False
        if not self._spend(now_s):
            return False
        self._connection = (self._connection + 1) % 48
        self._handshake = edhoc.Responder(
            PRIMITIVES,
            self._own,
            lambda public: agree(self._private, public),
            self._find_peer,
            connections()[self._connection],
        )
        self.counts["handshakes begun"] += 1
        return True

    def _find_peer(self, kid: bytes) -> edhoc_keys.Party | None:
        return self._gateway if self._gateway is not None and self._gateway.kid == kid else None

    def _spend(self, now_s: float) -> bool:
        if self.bucket.take(now_s):
            return True
        self.counts["over the limit"] += 1
        return False

    def _record(self, asked: Frame, now_s: float, answer: Callable[[bytes], bytes | None]) -> Frame | None:
        now_ms = int(now_s * 1000)
        header = frame.header(asked.kind, asked.destination, asked.source)
        for one in (self.made, self.session):
            if one is None or one.connection != asked.payload[:1]:
                continue
            try:
                message = one.open(header, asked.payload, now_ms)
            except RecordError:
                self.counts["records refused"] += 1
                return None
            except SessionError:
                break
            if one is self.made:
                self.session, self.made, self._handshake, self._kept = one, None, None, None
                self.leaving = False
                self.counts["sessions opened"] += 1
            if self.leaving and not isinstance(messages.message_of(message), messages.Enrolment):
                self.session = None
                break
            said = answer(message)
            if said is None:
                return None
            back = frame.header(frame.RECORD, asked.source, self._address)
            return Frame(frame.RECORD, asked.source, self._address, one.seal(back, said, now_ms))
        self.counts["hints"] += 1
        return Frame(frame.MESSAGE, asked.source, self._address, messages.HINT.to_bytes())
