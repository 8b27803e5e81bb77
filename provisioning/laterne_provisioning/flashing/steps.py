"""The steps of a flashing by USB, in their order. Every one may be the last: the whole is then given again.

the board is            what an interruption leaves             what the next one does
stopped                 no main.py, the former release          goes on from here
written                 some files, none of them half           writes the others
read back, tested       all files, no main.py                   reads back again
finished                main.py                                 stops it, finds nothing to write, starts it again
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from laterne_protocol.release_file import Release
from laterne_provisioning import output
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.flashing import checking, interpreter, layout, writing
from laterne_provisioning.flashing.checking import Checked
from laterne_provisioning.flashing.interpreter import Interpreter
from laterne_provisioning.flashing.repl import Repl

# As firmware/laterne_firmware/board.py tells it with the proof of its keys.
_HARDWARE = "import machine,binascii\nprint(binascii.hexlify(machine.unique_id()[:16]).decode())"


@dataclass(frozen=True)
class Flashed:
    """A board after its flash was written.

    found: its interpreter. checked: None where the release tests nothing. hardware: the chip's own number.
    """

    model: str
    found: Interpreter
    written: writing.Written
    checked: Checked | None
    hardware: bytes


def flashed(
    port: str,
    release: Release,
    model: str | None,
    settings: Mapping[str, int] | None,
    say: Callable[[str], None],
    require: Callable[[bytes], None] = lambda hardware: None,
) -> Flashed:
    """Bring a release onto the board on this USB port and start it. Who calls has checked the release's signatures.

    model: what the technician says the board is. settings: as in /settings.json, None leaves those that are there. say:
    what happens, for people. require: is asked with the chip's own number before anything is written.
    Raises UsageError, NoRepl, OperatorError; then the same can be done again.
    """
    say(f"Interrupting the board on {port}")
    with Repl(port) as repl:
        found = interpreter.told(repl.run(interpreter.ASK))
        chosen = interpreter.model_of(found, model, layout.models(release))
        say(f"A board of the model {chosen} with {found}")
        interpreter.require_fits(found, release.head, chosen, port)
        hardware = _hardware(repl)
        require(hardware)
        writing.require_not_enrolled(repl)
        wanted = layout.layout(release, chosen, settings)
        writing.stopped(repl)
        say(f"Writing release {output.foreign(release.head.version)}, {len(wanted.all)} files")
        with output.bar("writing") as progress:
            written = writing.write(repl, wanted, progress)
        say("All of it was read back. Reading its sensors")
        checked = checking.check(repl, release)
        writing.finish(repl, wanted)
        say("Starting it")
        repl.reset()
    return Flashed(chosen, found, written, checked, hardware)


def _hardware(repl: Repl) -> bytes:
    told = repl.run(_HARDWARE)
    try:
        return bytes.fromhex(told.decode().strip())
    except ValueError as why:
        raise OperatorError(f"The board on {repl.port} tells no number of its own ({told[:32].hex()}).") from why


def require_same(flashed: bytes | None, enrolled: bytes, board_id: str, port: str, line: str) -> None:
    """That the board on the line is the one on USB, by the chips' own numbers; None: nothing was flashed.

    Raises OperatorError.
    """
    if flashed is not None and flashed != enrolled:
        raise OperatorError(
            f"The board on {line} was enrolled as {board_id}, and the one on {port} is another: label that one, "
            "connect the line to the board that you flash, and repeat the command for that one."
        )
