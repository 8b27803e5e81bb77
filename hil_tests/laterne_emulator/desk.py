"""The operator's desk of a running bench: requests of the control socket become deeds on boards, sensors and lines.

A request is {"do": DEED, ...}; an unknown deed, board or field is refused with a sentence, and nothing is done.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from laterne_emulator.bench import Bench
from laterne_emulator.board import EmulatedBoard
from laterne_emulator.control import MAX_LINE_BYTES
from laterne_emulator.flash import Cut, FlashMisuse, Torn
from laterne_emulator.i2c import BusFault
from laterne_emulator.line import Line, LineFaults
from laterne_emulator.lives import BoardFailed
from laterne_emulator.world import Fault, Quantity

Request = dict[str, Any]
LAST_LIVES = 20


class Refused(Exception):
    """The request is wrong: nothing was done."""


class Desk:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._deeds: dict[str, Callable[[Request], Awaitable[Request]]] = {
            "status": self._status,
            "pin": self._pin,
            "power_on": self._power_on,
            "power_off": self._power_off,
            "reset": self._reset,
            "cut": self._cut,
            "sensor": self._sensor,
            "i2c": self._i2c,
            "line": self._line,
            "plug": self._plug,
            "unplug": self._unplug,
            "babble": self._babble,
            "tap": self._tap,
            "world": self._world,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it goes or sends a line that is too long."""
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self.answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            return  # the client has gone, or the emulator ends
        except ValueError:
            writer.write(json.dumps({"error": f"a line is longer than {MAX_LINE_BYTES} bytes"}).encode() + b"\n")
        finally:
            writer.close()

    async def answer(self, line: bytes) -> Request:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise Refused("a request is a JSON object")
            deed = self._deeds.get(request.get("do", ""))
            if deed is None:
                raise Refused(f"what to do? one of {', '.join(self._deeds)}")
            return {"ok": True} | await deed(request)
        except (Refused, BoardFailed, FlashMisuse) as why:
            return {"error": str(why)}
        except (KeyError, ValueError, TypeError) as why:
            return {"error": f"the request is wrong: {type(why).__name__}: {why}"}

    def _board(self, request: Request) -> EmulatedBoard:
        board = self._bench.boards.get(request["board"])
        if board is None:
            raise Refused(f"no board {request['board']!r}; there are {', '.join(self._bench.boards)}")
        return board

    def _line_of(self, request: Request) -> Line:
        return self._bench.lines[self._board(request).name]

    async def _status(self, request: Request) -> Request:
        return {"boards": {name: self._state(board) for name, board in self._bench.boards.items()}}

    def _state(self, board: EmulatedBoard) -> Request:
        line = self._bench.lines[board.name]
        return {
            "powered": board.powered,
            "boots": board.boots,
            "reset_cause": board.cause.name.lower(),
            "endings": [life.ending.name.lower() for life in board.lives[-LAST_LIVES:]],
            "failure": str(board.failure) if board.failure else None,
            "readings_served": self._bench.readings_served(board.name),
            "bytes_to_board": board.uart.count.received,
            "bytes_from_board": board.uart.count.sent,
            "uart_overrun": board.uart.count.overrun,
            "flash": {
                "programs": board.flash.count.programs,
                "erases": board.flash.count.erases,
                "bytes_programmed": board.flash.count.bytes_programmed,
            },
            "formatted": board.formatted,
            "pins": {str(pin): level for pin, level in board.pins.outputs().items()},
            "line": vars(line.count) | {"plugged": line.plugged},
        }

    async def _pin(self, request: Request) -> Request:
        """{"board", "pin", "value": 0, 1 or null}: drive a pin from outside; null lets go."""
        value = request["value"]
        if value not in (0, 1, None):
            raise Refused("a pin takes 0, 1 or null")
        self._board(request).pins.drive(int(request["pin"]), value)
        return {}

    async def _power_on(self, request: Request) -> Request:
        """{"board", "cut": as in `cut`, counted from power-on}"""
        await self._board(request).power_on(_cut(request["cut"]) if "cut" in request else None)
        return {}

    async def _power_off(self, request: Request) -> Request:
        await self._board(request).power_off()
        return {}

    async def _reset(self, request: Request) -> Request:
        self._board(request).reset()
        return {}

    async def _cut(self, request: Request) -> Request:
        """{"board", "at", "torn", "seed"}: take the power at the flash operation `at` from now (0: the next)."""
        self._board(request).flash.cut_power(_cut(request))
        return {}

    async def _sensor(self, request: Request) -> Request:
        """{"board", "sensor", "fault"}"""
        sensors = self._bench.sensors[self._board(request).name]
        sensor = sensors.get(request["sensor"])
        if sensor is None:
            raise Refused(f"no sensor {request['sensor']!r}; there are {', '.join(sensors)}")
        sensor.probe.fault = Fault(request["fault"])
        return {}

    async def _i2c(self, request: Request) -> Request:
        """{"board", "bus", "fault"}"""
        self._board(request).buses[int(request.get("bus", 0))].fault = BusFault(request["fault"])
        return {}

    async def _line(self, request: Request) -> Request:
        """{"board", and any field of LineFaults}"""
        faults = self._line_of(request).faults
        given = {key: value for key, value in request.items() if key not in ("do", "board")}
        known = {field.name for field in fields(LineFaults)}
        if unknown := set(given) - known:
            raise Refused(f"a line has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
        for name, value in given.items():
            wanted = type(getattr(faults, name))
            setattr(faults, name, wanted(value))
        return {}

    async def _plug(self, request: Request) -> Request:
        self._line_of(request).plug()
        return {}

    async def _unplug(self, request: Request) -> Request:
        self._line_of(request).unplug()
        return {}

    async def _babble(self, request: Request) -> Request:
        """{"board", "on"}"""
        line, board = self._line_of(request), self._board(request)
        line.babble(line.ends.index(board.uart), bool(request["on"]))
        return {}

    async def _tap(self, request: Request) -> Request:
        """{"on"}: record what is on all lines from now on, in line.bin beside each port, or stop it."""
        self._bench.tap(bool(request["on"]))
        return {}

    async def _world(self, request: Request) -> Request:
        """{QUANTITY: value or null, ...}: hold a quantity; null lets it follow the day again."""
        given = {Quantity(key): value for key, value in request.items() if key != "do"}
        for quantity, value in given.items():
            self._bench.world.hold(quantity, None if value is None else float(value))
        return {}


def _cut(fields_of_cut: Request) -> Cut:
    torn = Torn(fields_of_cut.get("torn", Torn.CLEAN.value))
    return Cut(int(fields_of_cut["at"]), torn, int(fields_of_cut.get("seed", 0)))
