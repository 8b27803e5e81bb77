"""One end of a handshake and of its session, on either interpreter, for test_edhoc*.py and test_session*.py.

{"do": name, ...} with bytes as hex. On the board its primitives are those of the firmware; on CPython the test passes
them to `End`.
"""

import time

from laterne_protocol import edhoc, session
from laterne_protocol.edhoc_keys import Party, Primitives
from laterne_protocol.edhoc_messages import EdhocError


def no_steps_to(result):
    return result
    yield


def party_of(said):
    return Party(bytes.fromhex(said["kid"]), bytes.fromhex(said["ccs"]), bytes.fromhex(said["public"]))


class End:
    """Answers questions about the one handshake that it holds."""

    def __init__(self, primitives):
        self._primitives = primitives

    def answer(self, question):
        return getattr(self, question["do"])(question)

    def make(self, question):
        """A new handshake. ephemeral: private and public key, instead of a new pair; peers: whom we talk to."""
        own = party_of(question["own"])
        private = bytes.fromhex(question["own"]["private"])
        peers = {peer.kid: peer for peer in [party_of(said) for said in question["peers"]]}
        given = self._primitives
        make_key = given.make_key
        if "ephemeral" in question:
            pair = tuple([bytes.fromhex(part) for part in question["ephemeral"]])

            def make_key():
                return no_steps_to(pair)

        primitives = Primitives(
            make_key,
            given.decompress,
            given.agree,
            given.hkdf_extract,
            given.hkdf_expand,
            given.ccm_seal,
            given.ccm_open,
        )
        role = edhoc.Initiator if question["role"] == "initiator" else edhoc.Responder
        self.handshake = role(
            primitives,
            own,
            lambda public: given.agree(private, public),
            peers.get,
            bytes.fromhex(question["connection"]),
            tuple(question.get("suites", [2])),
        )
        return self.handshake.state

    def take(self, question):
        """[answer, state, number of steps, microseconds, the longest step in microseconds]"""
        steps = self.handshake.take(question["step"], bytes.fromhex(question.get("message", "")))
        count = longest = 0
        begun = former = now_us()
        while True:
            try:
                next(steps)
            except StopIteration as finished:
                now = now_us()
                return [
                    finished.value.hex(),
                    self.handshake.state,
                    count + 1,
                    now - begun,
                    max(longest, now - former),
                ]
            now = now_us()
            count += 1
            longest = max(longest, now - former)
            former = now

    def error_for(self, question):
        """The EDHOC error message that answers this step."""
        try:
            self.take(question)
        except EdhocError as why:
            return why.answer.hex()
        return None

    def refusal(self, question):
        """The class of the error that these messages to a new handshake end in, or "" when all are taken."""
        self.make(question["make"])
        try:
            for step, message in question["messages"]:
                self.take({"step": step, "message": message})
        except Exception as why:
            return type(why).__name__
        return ""

    def export(self, question):
        context = bytes.fromhex(question["context"])
        return self.handshake.exporter(question["label"], context, question["size"]).hex()

    def peer(self, question):
        return self.handshake.peer.kid.hex()

    def open_session(self, question):
        self.session = session.session_of(self.handshake, question["sender"], question["address"], 0)
        return self.session.connection.hex()

    def seal(self, question):
        return self.session.seal(
            bytes.fromhex(question["header"]), bytes.fromhex(question["message"]), question.get("now_ms", 0)
        ).hex()

    def open(self, question):
        return self.session.open(
            bytes.fromhex(question["header"]), bytes.fromhex(question["record"]), question.get("now_ms", 0)
        ).hex()


def now_us():
    return time.ticks_us() if hasattr(time, "ticks_us") else time.perf_counter_ns() // 1000


def board_primitives():
    """The primitives of the firmware."""
    import os

    from laterne_firmware import ciphers, p256_keys, p256_peer

    return Primitives(
        lambda: p256_keys.make_key(os.urandom),
        p256_peer.decompress,
        lambda private, public: p256_peer.agree(private, public, os.urandom),
        ciphers.hkdf_extract,
        ciphers.hkdf_expand,
        ciphers.ccm_seal,
        ciphers.ccm_open,
    )


if __name__ == "__main__":
    from lines import serve

    serve(End(board_primitives()).answer)
