"""`laterne emulate`: emulated boards that run until they are told to stop."""

import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench

MAX_BOARDS = 32


def emulate(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Boards live in DIR/board-01 ...; what is there goes on.")
    ],
    boards: Annotated[int, typer.Option(min=1, max=MAX_BOARDS, help="How many boards.")] = 1,
    blank: Annotated[bool, typer.Option(help="New boards get blank flash, no firmware.")] = False,
    firmware: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The firmware's sources; default: those of this checkout.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For the sensors' noise and the lines' faults.")] = 0,
    report_seconds: Annotated[
        int | None, typer.Option(min=5, max=3600, help="New boards close reports this often.")
    ] = None,
    sample_ms: Annotated[
        int | None, typer.Option(min=200, max=3_600_000, help="New boards read their sensors this often.")
    ] = None,
    bus: Annotated[bool, typer.Option("--bus", help="All boards on one half-duplex line, DIR/bus.")] = False,
    instant_flash: Annotated[
        bool, typer.Option("--instant-flash", help="Flash takes no time, and no UART is deaf meanwhile.")
    ] = False,
    tap: Annotated[bool, typer.Option("--tap", help="Record what is on a line in line.bin beside its port.")] = False,
) -> None:
    """Run emulated sensor boards with serial ports DIR/NAME/uart and DIR/NAME/usb, until Ctrl-C."""
    # These need the extra `emulator`; without it the other commands of laterne still work.
    try:
        from laterne_emulator.bench import Bench
        from laterne_emulator.flash import INSTANT, TYPICAL_TIMING, FlashMisuse
        from laterne_emulator.image import NoFirmware, find_firmware
        from laterne_emulator.interpreter import EmulatorUnusable
        from laterne_emulator.lives import BoardFailed
        from laterne_emulator.release_tool import ReleaseNotBuilt
    except ImportError as why:
        print(f"emulate: {why}. Install it with: pip install 'laterne[emulator]'", file=sys.stderr)
        raise typer.Exit(2) from None
    # The firmware refuses a settings file with anything out of these bounds (laterne_firmware/settings.py).
    settings: dict[str, int | float | str] = {}
    if report_seconds is not None:
        settings["report_s"] = report_seconds
    if sample_ms is not None:
        settings["sample_ms"] = sample_ms
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _claim(directory)
        sources = None if blank else find_firmware(firmware)
        bench = Bench(
            directory,
            boards,
            firmware=sources,
            settings=settings,
            bus=bus,
            seed=seed,
            timing=INSTANT if instant_flash else TYPICAL_TIMING,
        )
        asyncio.run(_run(bench, tap))
    except (NoFirmware, ReleaseNotBuilt, EmulatorUnusable, ValueError, OSError) as why:
        print(f"emulate: {why}", file=sys.stderr)
        raise typer.Exit(2) from None
    except ExceptionGroup as failures:  # boards that failed, while they started or later
        expected, others = failures.split((BoardFailed, FlashMisuse, EmulatorUnusable))
        if others is not None or expected is None:
            raise
        for failure in _each(expected):
            print(f"emulate: {failure}", file=sys.stderr)
        raise typer.Exit(1) from None


def _claim(directory: Path) -> None:
    """Keep the directory for this process until it ends. Raises OSError if another one has it."""
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise OSError(f"another `laterne emulate` runs the boards in {directory}: stop it first") from None


def _each(failures: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found = []
    for failure in failures.exceptions:
        found += _each(failure) if isinstance(failure, BaseExceptionGroup) else [failure]
    return found


async def _run(bench: "Bench", tap: bool) -> None:
    from laterne_emulator.control import MAX_LINE_BYTES, reachable
    from laterne_emulator.desk import Desk

    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(sign, told_to_stop.set)
    socket = bench.folder / "control"
    socket.unlink(missing_ok=True)
    async with bench:
        bench.tap(tap)
        await bench.power_on()
        server = await asyncio.start_unix_server(Desk(bench).serve, reachable(socket), limit=MAX_LINE_BYTES)
        try:
            for name, board in bench.boards.items():
                print(f"{name}: uart {bench.lines[name].path}, usb {board.usb.path}", flush=True)
            await told_to_stop.wait()
        finally:
            server.close()
            socket.unlink(missing_ok=True)
