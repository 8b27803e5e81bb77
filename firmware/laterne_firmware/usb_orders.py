"""A question about an order that a technician brings by USB (protocol/README.md, 12.7): read here, judged by `orders`.

Whoever holds the cable writes there: nothing of it is believed but a frame whose CRC is right, and of that only which
question it is. In memory from the zero byte ahead of a frame to the one that ends it, and no longer.
"""

import asyncio
import sys

from micropython import const

from laterne_protocol import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from select import poll

_MAX_BYTES = const(400)  # the longest order to end a board's service has 190, and 12 with its frame
_LOOK_MS = const(20)
_SILENT_LOOKS = const(50)
_QUESTIONS = (b"\x18", b"\x1e")  # board_messages.RECEIPT_ARRIVED, sessions.BY_USB


async def question(usb: "poll", beat: "Callable[[], None]") -> bytes:
    """What the next frame asks, its first byte says what; empty when it is none, or none comes within a second."""
    packet = bytearray()
    looks = 0  # all of them: who sends a byte now and then must not hold up what the gateway asks
    for _ in range(_MAX_BYTES):
        while not usb.poll(0):
            looks += 1
            if looks > _SILENT_LOOKS:
                return b""
            beat()
            await asyncio.sleep_ms(_LOOK_MS)
        byte = sys.stdin.buffer.read(1)
        if byte != frame.DELIMITER:
            packet.extend(byte)
        elif packet:
            found = frame.FrameDecoder().feed(packet + byte)
            asked = found[0].payload if found and found[0].kind == frame.USB else b""
            return asked if asked[:1] in _QUESTIONS else b""
    return b""
