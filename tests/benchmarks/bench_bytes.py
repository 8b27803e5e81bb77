"""Bytes a reading on the line, beside what others' formats take for the same readings.

Ours is everything that crosses the line for a report: chain, signature, message, record of a session, frame, the zero
ahead. The poll that fetches a report has a row of its own; a handshake, once a day, is left out. The others are encoded
as well as their specifications allow, without signature, encryption, frame or transport:

- SenML-CBOR and SenML-JSON (RFC 8428): one pack a report, channel after channel; base name, time and unit stand once a
  channel. In CBOR a base value too, so that most values and times are half floats; each number is the shortest float
  that gives the reading back at its resolution.
- Sparkplug B 3.0 DDATA (protobuf, sparkplug_b.proto): alias instead of name, no datatype, timestamps on every metric as
  the specification demands, scaled integers as int_value.

Readings: a day of four channels at the noise of the parts (SHT4x 0.02 K and 0.08 %, BMP280 1.3 Pa, BH1750 with clouds
over the sun), sampled in turn for a report a minute; three seeds, 24 reports each, one an hour.
"""

import json
import math
import random
import struct
import sys
from collections.abc import Callable
from statistics import median

from laterne_gateway.primitives import PRIMITIVES
from laterne_protocol import cose, frame, messages
from laterne_protocol.channels import HUMIDITY, ILLUMINANCE, PRESSURE, TEMPERATURE, describe
from laterne_protocol.report import SET, Column, ColumnWriter, Report, times_of
from laterne_protocol.session import LinkKey, Session

SEEDS = (1, 2, 3)
CHANNELS = (TEMPERATURE, HUMIDITY, PRESSURE, ILLUMINANCE)
BUDGETS = {96: 4.0, 480: 2.2}
REPORT_MS = 60_000
UTC_MS = 1_790_000_000_000

Readings = dict[int, list[tuple[int, int]]]  # channel: (milliseconds since boot, scaled integer)


def day(seed: int, each: int) -> list[Readings]:
    """24 reports' readings, `each` of every channel in one."""
    source = random.Random(seed)
    reports = []
    cloud = 0.0
    for hour in range(24):
        start = (hour * 3600 + source.randrange(3000)) * 1000
        readings: Readings = {channel: [] for channel in CHANNELS}
        for index in range(each):
            at = start + REPORT_MS * index // each + source.randrange(8)  # the event loop is not exact
            angle = 2 * math.pi * (at / 86_400_000 - 0.375)
            cloud = min(1.0, max(0.0, cloud + source.gauss(0, 0.002)))
            sun = max(0.0, math.sin(angle + math.pi / 8)) * 40_000 * (1 - 0.8 * cloud)
            true = {
                TEMPERATURE: (15 + 6 * math.sin(angle) + source.gauss(0, 0.02)) * 100,
                HUMIDITY: (60 - 20 * math.sin(angle) + source.gauss(0, 0.08)) * 100,
                PRESSURE: 101_325 + 200 * math.sin(angle / 2) + source.gauss(0, 1.3),
                # The part counts whole lux divided by 1.2.
                ILLUMINANCE: round((18 + sun + source.gauss(0, 0.4)) * 1.2) / 1.2 * 10,
            }
            for channel in CHANNELS:
                readings[channel].append((at, round(true[channel])))
        reports.append(readings)
    return reports


def ours(readings: Readings, sequence: int) -> bytes:
    """The frame that brings the report. Signature, kid and digest are random: they have their size and no pattern."""
    source = random.Random(sequence)
    times = [at for at, _ in readings[TEMPERATURE]]
    closed = max(times[0] + REPORT_MS, times[-1])
    columns = []
    for channel in CHANNELS:
        writer = ColumnWriter(channel)
        for _, value in readings[channel]:
            writer.add(value)
        columns.append(Column(channel, bytes(writer.packed), writer.quality))
    report = Report(
        "LE-0007", 100_000 + sequence, source.randbytes(16), 40, closed, (SET, UTC_MS + closed, 15),
        times_of(times, closed), columns, [],
    )  # fmt: skip
    signed = cose.assemble(cose.protected_header(source.randbytes(8)), report.to_payload(), source.randbytes(64))
    answer = messages.ReportAnswer(sequence % 256, 40, closed + 900, 59_000, 1, [signed])
    return _sealed(answer.to_bytes(), frame.GATEWAY, frame.FIRST_BOARD, source)


def poll() -> bytes:
    """The frame that asks for it and acknowledges the one before."""
    asked = messages.Poll(77, 100_000, 100_000, (40, UTC_MS, 15))
    return _sealed(asked.to_bytes(), frame.FIRST_BOARD, frame.GATEWAY, random.Random(77))


def _sealed(message: bytes, destination: int, sender: int, source: random.Random) -> bytes:
    # With keys that nobody has shaken hands for: sealed bytes look like random ones, which COBS has to carry.
    key = LinkKey(source.randbytes(16), source.randbytes(13))
    made = Session(PRIMITIVES, key, key, b"\x01", b"\x02", 0)
    record = made.seal(frame.header(frame.RECORD, destination, sender), message, 0)
    return frame.DELIMITER + frame.Frame(frame.RECORD, destination, sender, record).to_bytes()


def senml_cbor(readings: Readings) -> bytes:
    """RFC 8428, 6: labels bn -2, bt -3, bu -4, bv -5, v 2, t 6."""
    records = []
    for position, channel in enumerate(CHANNELS):
        _, unit, exponent = describe(channel)
        first_at, first = readings[channel][0]
        for index, (at, value) in enumerate(readings[channel]):
            fields: list[bytes] = []
            if index == 0:
                # The names are as short as two channels of one board can have them.
                fields.append(b"\x21" + _cbor_text(f"LE-0007:{channel}"))
                if position == 0:
                    fields.append(b"\x22" + _number((UTC_MS + first_at) / 1000, 0.001))
                fields += [b"\x23" + _cbor_text(unit), b"\x24" + _number(first * 10**exponent, 10**exponent)]
            fields.append(b"\x02" + _number((value - first) * 10**exponent, 10**exponent))
            if at != first_at:
                fields.append(b"\x06" + _number((at - first_at) / 1000, 0.02))  # as exact as our grid
            records.append(bytes([0xA0 | len(fields)]) + b"".join(fields))
    count = len(records)
    return (bytes([0x80 | count]) if count < 24 else b"\x99" + count.to_bytes(2, "big")) + b"".join(records)


def _number(value: float, resolution: float) -> bytes:
    # The shortest of integer, half, single, double that is the value to half of its resolution.
    whole = round(value)
    if abs(whole - value) < resolution / 1000:
        magnitude, major = (whole, 0) if whole >= 0 else (-1 - whole, 0x20)
        if magnitude < 24:
            return bytes([major | magnitude])
        for info, size in ((24, 1), (25, 2), (26, 4)):
            if magnitude < 1 << (8 * size):
                return bytes([major | info]) + magnitude.to_bytes(size, "big")
    for head, form in ((0xF9, ">e"), (0xFA, ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if abs(struct.unpack(form, packed)[0] - value) < resolution / 2:
            return bytes([head]) + packed
    return b"\xfb" + struct.pack(">d", value)


def _cbor_text(text: str) -> bytes:
    return bytes([0x60 | len(text)]) + text.encode()


def senml_json(readings: Readings) -> bytes:
    """RFC 8428, 4 and 5."""
    records = []
    for position, channel in enumerate(CHANNELS):
        _, unit, exponent = describe(channel)
        first_at = readings[channel][0][0]
        for index, (at, value) in enumerate(readings[channel]):
            record: dict[str, object] = {}
            if index == 0:
                record = {"bn": f"LE-0007:{channel}", "bu": unit}
                if position == 0:
                    record["bt"] = (UTC_MS + first_at) / 1000
            record["v"] = round(value * 10**exponent, -exponent) if exponent else value
            if at != first_at:
                record["t"] = round((at - first_at) / 1000, 2)
            records.append(record)
    return json.dumps(records, separators=(",", ":")).encode()


def sparkplug_b(readings: Readings) -> bytes:
    """Payload: 1 timestamp, 2 metrics, 3 seq. Metric: 2 alias, 3 timestamp, 10 int_value."""
    out = bytearray(b"\x08" + _varint(UTC_MS))
    for channel in CHANNELS:
        for at, value in readings[channel]:
            metric = b"\x10" + _varint(channel) + b"\x18" + _varint(UTC_MS + at) + b"\x50" + _varint(value & 0xFFFFFFFF)
            out += b"\x12" + _varint(len(metric)) + metric
    return bytes(out + b"\x18" + _varint(77))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


OTHERS: list[tuple[str, Callable[[Readings], bytes]]] = [
    ("SenML-CBOR", senml_cbor),
    ("SenML-JSON", senml_json),
    ("Sparkplug B", sparkplug_b),
]


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, budget): bytes a reading, median and worst of 72 reports."""
    found = []
    for size in (4, 96, 480):
        reports = [readings for seed in SEEDS for readings in day(seed, size // len(CHANNELS))]
        sizes = [len(ours(readings, index)) for index, readings in enumerate(reports)]
        budget = f"≤ {BUDGETS[size]}" if size in BUDGETS else ""
        found.append((f"{size} readings: a report on the line, bytes a reading", _figure(sizes, size), budget))
        for name, encode in OTHERS:
            others = [len(encode(readings)) for readings in reports]
            found.append((f"{size} readings: {name}, unsigned and unframed", _figure(others, size), "a peer"))
    asked = len(poll())
    found.append(("the poll that fetches a report: bytes", str(asked), ""))
    found.append(("the poll, bytes a reading at 96 and 480", f"{asked / 96:.2f}, {asked / 480:.2f}", ""))
    return found


def _figure(sizes: list[int], readings: int) -> str:
    return f"{median(sizes) / readings:.2f} (worst {max(sizes) / readings:.2f})"


if __name__ == "__main__":
    for what, figure, budget in rows():
        sys.stdout.write(f"{what:<64}{figure:>24}  {budget}\n")
