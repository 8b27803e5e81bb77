"""The board's end of the control channel (records.py). Runs on MicroPython, before and under the firmware.

Nothing here allocates: a record is packed into one buffer that was made at start, and unpacked from another.
"""

from struct import pack_into

from records import END, HEADER, HEADER_BYTES, PAYLOAD_BYTES

_out = bytearray(HEADER_BYTES + PAYLOAD_BYTES)
reply = bytearray(HEADER_BYTES + PAYLOAD_BYTES)  # the last reply, valid until the next request
_channel = None
_sequence = 0


def connect(fd: int) -> None:
    global _channel
    _channel = open(fd, "r+b")  # an int bypasses the file system and stays usable when it is unmounted


def tell(operation: int, argument: int = 0, value: int = 0) -> None:
    """Send a record that has no reply."""
    pack_into(HEADER, _out, 0, operation, argument, 0, value)
    _channel.write(_out, HEADER_BYTES)


def ask(operation: int, argument: int = 0, value: int = 0, payload: "bytes | None" = None) -> None:
    """Send a record and wait for its reply. Raises OSError(errno) if the supervisor refuses."""
    global _sequence
    # A Ctrl-C between a request and its reply leaves that reply in the channel: the number tells it apart.
    _sequence = (_sequence + 1) & 0xFF
    length = 0
    if payload is not None:
        length = len(payload)
        if length > PAYLOAD_BYTES:
            raise ValueError("the emulated bus takes at most 256 bytes at once")
        for i in range(length):
            _out[HEADER_BYTES + i] = payload[i]
    pack_into(HEADER, _out, 0, operation, argument, _sequence, value)
    _channel.write(_out, HEADER_BYTES + length)
    while True:
        if not _channel.readinto(reply):
            hang()  # the supervisor is gone: its terminal closes next, and SIGHUP ends this process
        if reply[2] == _sequence:
            break
    if reply[0]:
        raise OSError(reply[0])


def value() -> int:
    """The value of the last reply."""
    return reply[4] | reply[5] << 8 | reply[6] << 16 | reply[7] << 24


def flags() -> int:
    """The second byte of the last reply."""
    return reply[1]


def send_page(operation: int, data: "bytes | bytearray", offset: int, length: int) -> None:
    pack_into(HEADER, _out, 0, operation, 0, 0, 0)
    for i in range(length):
        _out[HEADER_BYTES + i] = data[offset + i]
    _channel.write(_out, HEADER_BYTES + length)


def end(why: int) -> None:
    """Never returns. The supervisor sends SIGKILL, so that no finally block and no finaliser runs."""
    tell(END, why)
    hang()


def hang() -> None:
    while True:
        try:
            if not _channel.read(1):
                _wait_for_the_signal()
        except KeyboardInterrupt:
            pass  # a board without power does not hear Ctrl-C


def _wait_for_the_signal() -> None:
    import select

    select.poll().poll(1000)
