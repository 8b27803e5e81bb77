"""A session that proves itself while other work is about to begin, for tests/firmware/test_sessions.py."""

import asyncio
import os

from lines import serve

from laterne_firmware import ciphers, sessions
from laterne_firmware.backlog import Backlog
from laterne_firmware.clock import Clock
from laterne_firmware.identity import Identity
from laterne_firmware.reports import Reporter
from laterne_firmware.state import State
from laterne_protocol import frame, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MESSAGE_1 = bytes((sessions.MESSAGE_1, 3, 2, 0x58, 32)) + bytes(32) + b"\x05"


def answer(question: "dict[str, Any]") -> object:
    said = []  # type: list[str]
    identity, clock = Identity(), Clock(1)
    reporter = Reporter(identity, Backlog(State("st"), said.append, "log"), clock, os.urandom, said.append, 60)
    board = sessions.Sessions(identity, clock, os.urandom, said.append, 1, reporter, (0, "unix", b"1"))
    board.gateway_digest = bytes(16)
    down, up = session.LinkKey(bytes(16), bytes(13)), session.LinkKey(b"\x01" * 16, bytes(13))
    primitives = ciphers  # type: Any  # a module with ccm_seal and ccm_open
    gateway = session.Session(primitives, down, up, b"\x01", b"\x02", 0)
    board.following = session.Session(primitives, up, down, b"\x02", b"\x01", 0)
    header = frame.header(frame.RECORD, frame.FIRST_BOARD, frame.GATEWAY)
    now_ms = clock.now_ms()
    began = board._begin(MESSAGE_1, now_ms)
    opened = board.open(header, gateway.seal(header, b"poll", now_ms), now_ms)
    asyncio.run(board._work(lambda: None))
    return {"began": began, "opened": opened.decode(), "question": board._question.hex(), "said": said}


serve(answer)
