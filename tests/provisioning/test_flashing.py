"""`laterne flash` without a board: what comes to lie where, which interpreters do, what is refused before a write."""

import contextlib
import os
import pty
import threading
import tty
from pathlib import Path

import pytest
from tests.provisioning.commands import laterne

from laterne_emulator import image, release_tool
from laterne_protocol.release_file import Release
from laterne_protocol.release_index import Head
from laterne_provisioning import labels
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import checking, commands, interpreter, layout, repl, writing
from laterne_provisioning.flashing.interpreter import Interpreter

MODELS = ["emulated", "esp32", "pico", "pico2"]
PICO = Interpreter("micropython", (1, 29, 0), 6, "rp2", "Raspberry Pi Pico with RP2040")


@pytest.fixture(scope="module")
def release() -> Release:
    return release_tool.release(image.find_firmware())


def head(abi: int = 6, interpreters: tuple[int, int] | None = None, loader: int = 1) -> Head:
    return Head("1.0", abi, 1, loader, "laterne_firmware.app", interpreters=interpreters)


def test_a_flashed_board_holds_what_an_image_of_a_board_does(release: Release) -> None:
    for model in ("emulated", "pico"):
        planned = layout.layout(release, model, {"report_s": 5, "address": 3})
        held = {file.path: file.content for file in planned.all}
        assert held == image.firmware_files(image.find_firmware(), model, {"report_s": 5, "address": 3})
        assert len(held) == len(planned.all), "no file twice"
    assert layout.models(release) == MODELS
    assert layout.CHECK in release.base
    assert "settings.json" not in {file.path for file in layout.layout(release, "pico").all}


def test_what_starts_the_board_comes_last_and_an_index_after_its_files(release: Release) -> None:
    planned = layout.layout(release, "pico")
    paths = [file.path for file in planned.all]
    assert paths[-1] == "main.py"
    for slot in ("a", "r"):
        of_slot = [path for path in paths if path.startswith(f"{slot}/")]
        assert of_slot[-1] == f"{slot}/M"
        assert paths.index(f"{slot}/M") < paths.index("slot.0")
    for at, file in enumerate(planned.files):
        if file.same_as is not None:
            assert any(one.path == file.same_as and one.content == file.content for one in planned.files[:at])


def test_a_release_that_cannot_be_flashed_is_refused(release: Release) -> None:
    with pytest.raises(OperatorError, match=r"no pins/pico9.mpy"):
        layout.layout(release, "pico9")


@pytest.mark.parametrize(
    ("platform", "machine", "model"),
    [
        ("rp2", "Raspberry Pi Pico with RP2040", "pico"),
        ("rp2", "Raspberry Pi Pico 2 with RP2350", "pico2"),
        ("esp32", "Generic ESP32 module with ESP32", "esp32"),
        ("linux", "linux [GCC 14.2.1] version", "emulated"),
    ],
)
def test_a_board_says_which_model_it_is(platform: str, machine: str, model: str) -> None:
    found = Interpreter("micropython", (1, 29, 0), 6, platform, machine)
    assert interpreter.model_of(found, None, MODELS) == model
    assert interpreter.model_of(found, model, MODELS) == model
    other = "pico" if model != "pico" else "pico2"
    with pytest.raises(UsageError, match=f"model is {model}"):
        interpreter.model_of(found, other, MODELS)


def test_a_board_that_nobody_knows_needs_a_model() -> None:
    found = Interpreter("micropython", (1, 29, 0), 6, "esp32", "Generic ESP32S3 module with ESP32S3")
    with pytest.raises(UsageError, match="give --model, one of emulated, esp32"):
        interpreter.model_of(found, None, MODELS)
    assert interpreter.model_of(found, "esp32", MODELS) == "esp32"
    with pytest.raises(UsageError, match="no pin map for 'pico3'"):
        interpreter.model_of(found, "pico3", MODELS)
    with pytest.raises(UsageError, match="no pin map for a pico"):
        interpreter.model_of(PICO, None, ["esp32"])


def test_an_interpreter_that_a_release_was_not_built_for_is_refused_with_the_command_that_helps() -> None:
    for fitting in (head(), head(interpreters=(12900, 12900)), head(interpreters=(12800, 13099))):
        interpreter.require_fits(PICO, fitting, "pico", "/dev/ttyACM0")
    for model, command in (("pico", "RPI_PICO-v1.28.9.uf2"), ("esp32", "esptool --port /dev/ttyACM0")):
        with pytest.raises(OperatorError, match=r"for MicroPython 1.28.0 to 1.28.9 .*it is 1.29.0") as refused:
            interpreter.require_fits(PICO, head(interpreters=(12800, 12809)), model, "/dev/ttyACM0")
        assert command in str(refused.value)
    with pytest.raises(OperatorError, match="ABI 7, and it loads bytecode of ABI 6"):
        interpreter.require_fits(PICO, head(abi=7), "pico", "/dev/ttyACM0")
    with pytest.raises(OperatorError, match="interface 2"):
        interpreter.require_fits(PICO, head(loader=2), "pico", "/dev/ttyACM0")
    circuit = Interpreter("circuitpython", (9, 0, 0), 6, "rp2", "Pico with RP2040")
    with pytest.raises(OperatorError, match="runs circuitpython"):
        interpreter.require_fits(circuit, head(), "pico", "/dev/ttyACM0")


def test_what_a_board_says_of_itself_is_read_with_care() -> None:
    found = interpreter.told(b"['micropython', [1, 29, 0], 2822, 'rp2', 'Raspberry Pi Pico with RP2040']\r\n")
    assert (found, found.number) == (PICO, 12900)
    for wrong in (b"", b"Linux login:", b"['x', [1], 6, 'a', 'b']", b"[1, [1, 2, 3], 6, 'a', 'b']", b"(" * 600):
        with pytest.raises(OperatorError, match="no MicroPython"):
            interpreter.told(wrong)


def test_readings_of_the_self_test_are_shown_with_their_units() -> None:
    found = checking.checked(b"[['SHT4x at 0x44'], [(1, -921, 1), (2, None, 9), (36, 260592, 3)]]\r\n")
    assert found.sensors == ("SHT4x at 0x44",)
    assert [str(reading) for reading in found.readings] == [
        "air temperature: -9.21 °C",
        "relative humidity: no value",
        "illuminance 2: 26059.2 lx, at the end of its range",
    ]
    for wrong in (b"", b"Traceback", b"[1]", b"[[], [(1, 2)]]", b"[[], [('x', 1, 1)]]"):
        with pytest.raises(OperatorError, match="nothing that can be read"):
            checking.checked(wrong)


def test_a_release_that_is_not_signed_is_refused_before_a_byte_goes_to_the_board(
    release: Release, tmp_path: Path
) -> None:
    (tmp_path / "release").write_bytes(release.to_bytes())
    laterne("init", tmp_path / "office", "--no-passphrase")
    laterne("init", tmp_path / "stranger", "--no-passphrase")
    board, port = pty.openpty()
    os.set_blocking(board, False)
    flash = ("flash", os.ttyname(port), "--release", tmp_path / "release")
    refused = laterne(*flash, "--authority", tmp_path / "office", code=1)
    assert "0 of 1 signatures that are needed. Nothing was written" in refused.err
    laterne("release", "sign", tmp_path / "release", "--authority", tmp_path / "stranger")
    refused = laterne(*flash, "--trust", tmp_path / "office" / "trust.cbor", code=1)
    assert "Nothing was written" in refused.err
    with pytest.raises(BlockingIOError):
        os.read(board, 1)
    os.close(board)
    os.close(port)


def test_a_port_that_gives_no_repl_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repl, "ATTEMPTS", 2)
    monkeypatch.setattr(repl, "ATTEMPT_S", 0.1)
    board, port = pty.openpty()
    with pytest.raises(repl.NoRepl, match="lets nobody in by USB"):
        repl.Repl(os.ttyname(port))
    assert b"\x05A\x01" not in os.read(board, 4096), "nothing but Ctrl-C and Ctrl-A was sent"
    os.close(board)
    os.close(port)
    for path, words in (("/dev/nothing", "There is no port"), ("/dev/null", "no serial port")):
        with pytest.raises(UsageError, match=words):
            repl.Repl(path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [("_l(", b"x /a/y\r\n"), ("_l(", b"f /a/x\ny\r\n"), ("_h(", b"a\n"), ("statvfs", b"1")],
)
def test_a_board_that_answers_nonsense_is_a_sentence(release: Release, asked: str, said: bytes) -> None:
    class Nonsense:
        port = "the port"

        def run(self, program: str) -> bytes:
            return said * program.count(asked) or b"-\n" * program.count("_h(")

    with pytest.raises(OperatorError, match=r"(holds a name that cannot be read|answers something else)"):
        writing.write(Nonsense(), layout.layout(release, "pico"), lambda done, whole: None)  # type: ignore[arg-type]  # a Repl as far as it is asked


def test_where_a_label_cannot_go_is_said_before_a_board_is_flashed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a directory that is there"):
        commands.flash("/dev/null", label=tmp_path / "nowhere" / "x.svg")
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(UsageError, match="name a file"):
        labels.require_possible(tmp_path / "x.svg", 1)
    with pytest.raises(UsageError, match=r"write a \.pdf"):
        labels.require_possible(tmp_path / "y.svg", 22)


@pytest.mark.parametrize("prompt", [b"", b"raw REPL; CTRL-B to exit\r\n>"])
def test_a_port_that_talks_without_an_end_is_left_alone(monkeypatch: pytest.MonkeyPatch, prompt: bytes) -> None:
    """From the first moment, or once it has let us in: neither the memory nor the technician's time is its own."""
    monkeypatch.setattr(repl, "MAX_ANSWER_BYTES", 20_000)
    board, port = pty.openpty()
    tty.setraw(port)
    os.set_blocking(board, False)
    ended = threading.Event()

    def talk() -> None:
        runs = not prompt
        while not ended.wait(0.001):
            with contextlib.suppress(OSError):  # nothing is to be read, or nobody reads
                if runs:
                    os.write(board, b"x" * 500)
                    continue
                asked = os.read(board, 1000)
                runs = asked.endswith(b"\x04")  # the end of a program
                if runs:
                    os.write(board, b"OK")
                elif b"\x05A" in asked:
                    os.write(board, b"R\0")
                elif b"\x01" in asked:
                    os.write(board, prompt)

    talking = threading.Thread(target=talk, daemon=True)
    talking.start()
    try:
        with pytest.raises(repl.NoRepl, match="talks without an end"), repl.Repl(os.ttyname(port)) as found:
            found.run("print(1)")
    finally:
        ended.set()
        os.close(port)
        talking.join(10.0)
        os.close(board)


def test_what_is_missing_or_contradicts_itself_is_said_before_anything_is_done() -> None:
    some = Path("some")
    for words, options in (
        ("Which release?", {}),
        ("Whom to believe?", {"release_file": some}),
        ("Whom to believe?", {"release_file": some, "authority": some, "trust_file": some}),
        ("name that port with --line", {"release_file": some, "authority": some, "board_id": "LE-1"}),
        (
            "is named twice",
            {"release_file": some, "authority": some, "board_id": "LE-1", "line_port": "/dev/../dev/null"},
        ),
        ("give --id, too", {"release_file": some, "authority": some, "post": "P-1"}),
        ("enrols nobody", {"release_file": some, "trust_file": some, "board_id": "LE-1", "line_port": "l"}),
        ("takes --technician-key", {"release_file": some, "grant": some, "board_id": "LE-1", "line_port": "l"}),
        (".pdf, .png, .svg", {"release_file": some, "board_id": "LE-1", "line_port": "l", "label": Path("x.gif")}),
    ):
        with pytest.raises(UsageError, match=words):
            commands.flash("/dev/null", **options)
