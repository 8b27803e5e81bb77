"""lakers-python as the other end of a handshake, for test_edhoc_lakers.py: JSON lines in and out, bytes as hex.

Runs with the interpreter of the oracles' environment. Rust panics of lakers are a BaseException: they become an
answer, so that one of them does not end the process.
"""

import json
import sys

import lakers


class End:
    def make(self, question):
        self.own = question["own"]
        self.peer = question["peer"]
        self.private = bytes.fromhex(question["private"])
        self.connection = [*bytes.fromhex(question["connection"])]
        if question["role"] == "initiator":
            self.end = lakers.EdhocInitiator()
        else:
            self.end = lakers.EdhocResponder(self.private, lakers.Credential(bytes.fromhex(self.own)))
        self.ead = question.get("ead", {})

    def take(self, question):
        return getattr(self, f"step_{question['step']}")(bytes.fromhex(question["message"])).hex()

    def item(self, step):
        """The external authorization data of the message that this step makes: [label, is critical, hex of value]."""
        given = self.ead.get(str(step))
        return {} if given is None else {f"ead_{step}": [lakers.EADItem(given[0], given[1], bytes.fromhex(given[2]))]}

    def known(self):
        return lakers.Credential(bytes.fromhex(self.peer))

    def step_0(self, message):
        return self.end.prepare_message_1(self.connection, **self.item(1))

    def step_1(self, message):
        self.end.process_message_1(message)
        return self.end.prepare_message_2(lakers.CredentialTransfer.ByReference, self.connection, **self.item(2))

    def step_2(self, message):
        _, name, _ = self.end.parse_message_2(message)
        self.check(name)
        self.end.verify_message_2(self.private, lakers.Credential(bytes.fromhex(self.own)), self.known())
        message_3, _ = self.end.prepare_message_3(lakers.CredentialTransfer.ByReference, **self.item(3))
        return message_3

    def step_3(self, message):
        name, _ = self.end.parse_message_3(message)
        self.check(name)
        self.end.verify_message_3(self.known())
        return self.end.prepare_message_4(**self.item(4))

    def step_4(self, message):
        self.end.process_message_4(message)
        return b""

    def check(self, name):
        assert bytes(self.known().kid()) in bytes(name), "the peer named another kid"

    def export(self, question):
        context = bytes.fromhex(question["context"])
        return bytes(self.end.edhoc_exporter(question["label"], context, question["size"])).hex()


end = End()
for line in sys.stdin:
    question = json.loads(line)
    try:
        reply = {"answer": getattr(end, question["do"])(question)}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as why:
        reply = {"error": type(why).__name__, "message": str(why)}
    print(json.dumps(reply), flush=True)
