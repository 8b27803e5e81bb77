"""Labels: what a camera reads from them is the board and its key."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from tests.provisioning.commands import WITHIN_S, enrol, laterne
from tests.provisioning.fake_board import FakeBoard

from laterne_protocol import credential
from laterne_provisioning.output import base64url
from laterne_provisioning.words import words


def decoded(image: Any) -> list[str]:
    """What zxing, a reader of others, finds in a picture, in the order of reading."""
    zxing = pytest.importorskip("zxingcpp", reason="zxing-cpp is not installed: see pyproject.toml, development")
    found = zxing.read_barcodes(image.convert("L"))
    return [code.text for code in sorted(found, key=lambda code: (code.position.top_left.y, code.position.top_left.x))]


def painted(lines: list[str]) -> Any:
    """The picture that half blocks on a terminal are, light on dark as on most."""
    pil = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    image = pil.new("L", (max(map(len, lines)), 2 * len(lines)), 0)
    for y, line in enumerate(lines):
        for x, char in enumerate(line):
            image.putpixel((x, 2 * y), 255 * (char in "▀█"))
            image.putpixel((x, 2 * y + 1), 255 * (char in "▄█"))
    return image.resize((8 * image.width, 8 * image.height), 0)


def text_of(board: FakeBoard) -> str:
    return f"laterne:{board.board}:{base64url(credential.thumbprint(board.key.public))}"


def png(path: Path) -> Any:
    pil = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    return pil.open(path)


def test_the_code_on_a_label_names_the_board_and_its_key(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="pillow is not installed")
    enrol(board, "LE-0001", authority, "--post", "P-17")
    laterne("board", "label", "LE-0001", "--authority", authority, "-o", tmp_path / "one.png")
    image = png(tmp_path / "one.png")
    assert image.size == (1500, 900)
    assert decoded(image) == [text_of(board)]


def test_the_longest_id_fits(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="pillow is not installed")
    name = "W" * 32
    enrol(board, name, authority, "--post", "M" * 32)
    laterne("board", "label", name, "--authority", authority, "-o", tmp_path / "one.png")
    image = png(tmp_path / "one.png")
    assert decoded(image) == [text_of(board)]
    margin = image.crop((image.width - 40, 0, image.width, image.height))
    assert margin.convert("L").getextrema() == (255, 255), "nothing runs over the edge"


def test_a_sheet_has_the_labels_of_all_that_are_named_in_order(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    pytest.importorskip("PIL.Image", reason="pillow is not installed")
    laterne("board", "label", "LE-0002", "LE-0001", "--authority", authority, "-o", tmp_path / "sheet.png")
    image = png(tmp_path / "sheet.png")
    assert image.size == (4961, 7016)
    assert decoded(image) == [text_of(boards[1]), text_of(boards[0])]


def test_a_pdf_has_as_many_sheets_as_are_needed_and_its_codes_are_read(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    pytest.importorskip("PIL.Image", reason="pillow is not installed")
    pdfium = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed: see pyproject.toml, development")
    ids = ["LE-0001"] * 21 + ["LE-0002"]
    laterne("board", "label", *ids, "--authority", authority, "-o", tmp_path / "sheets.pdf")
    document = pdfium.PdfDocument(tmp_path / "sheets.pdf")
    assert len(document) == 2
    width, height = document[0].get_size()
    assert (round(width / 72 * 25.4), round(height / 72 * 25.4)) == (210, 297)
    pages = [decoded(document[at].render(scale=3).to_pil()) for at in range(2)]
    assert pages == [[text_of(boards[0])] * 21, [text_of(boards[1])]]
    assert (
        "write a .pdf"
        in laterne("board", "label", *ids, "--authority", authority, "-o", tmp_path / "s.svg", code=2).err
    )


def test_an_svg_shows_the_same_code_and_the_words(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    enrol(board, "LE-0001", authority, "--post", "P-17")
    laterne("board", "label", "LE-0001", "--authority", authority, "-o", tmp_path / "one.svg")
    shown = (tmp_path / "one.svg").read_text()
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", shown)
    assert texts[0] == "LE-0001"
    assert texts[1] + texts[2] == words(board.kid)
    assert texts[3:] == [board.kid.hex(), "P-17"]
    pil = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    black = {(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", shown)}
    size = max(x for x, _ in black) + 9
    image = pil.new("L", (size, size), 255)
    for x, y in black:
        image.putpixel((x + 4, y + 4), 0)
    assert decoded(image.resize((8 * size, 8 * size), 0)) == [text_of(board)]


def test_the_code_is_shown_on_the_terminal(authority: Path, board: FakeBoard) -> None:
    enrol(board, "LE-0001", authority)
    show = ["board", "show", "LE-0001", "--authority", authority]
    assert laterne(*show).out in laterne(*show, "--qr").out
    drawn = laterne(*show, "--qr").out.removeprefix(laterne(*show).out)
    assert decoded(painted(drawn.splitlines())) == [text_of(board)]
    assert json.loads(laterne(*show, "--json").out)["id"] == "LE-0001"


def test_what_cannot_be_labelled_is_said(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    enrol(board, "LE-0001", authority)
    label = ["board", "label", "--authority", authority, "-o"]
    assert "LE-0009 is not in the registry" in laterne(*label, tmp_path / "l.svg", "LE-0009", code=1).err
    assert ".pdf, .png, .svg" in laterne(*label, tmp_path / "l.bmp", "LE-0001", code=2).err
    assert "cannot be written" in laterne(*label, tmp_path / "no" / "l.svg", "LE-0001", code=2).err
    assert list(tmp_path.glob("l.*")) == []


def test_without_pillow_svg_still_works_and_the_others_say_what_is_missing(
    authority: Path, board: FakeBoard, tmp_path: Path
) -> None:
    import subprocess
    import sys

    enrol(board, "LE-0001", authority)
    for name, code in (("one.svg", 0), ("one.png", 2)):
        program = (
            "import sys; sys.modules['PIL'] = None\n"
            f"sys.argv = ['laterne', 'board', 'label', 'LE-0001', '--authority', {str(authority)!r}, '-o', "
            f"{str(tmp_path / name)!r}]\nfrom laterne_provisioning.__main__ import main; main()"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
    assert "pip install pillow" in done.stderr
    assert io.StringIO(done.stderr).readline().startswith("Labels as .png")


def test_a_terminal_without_blocks_gets_the_code_in_colours(authority: Path, board: FakeBoard) -> None:
    enrol(board, "LE-0001", authority)
    shown = [sys.executable, "-m", "laterne_provisioning", "board", "show", "LE-0001", "--authority", str(authority)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    environment.pop("COLUMNS", None)  # of the terminal that runs the tests
    piped = subprocess.run([*shown, "--qr"], env=environment, capture_output=True, timeout=WITHIN_S, check=True)
    assert b"no QR code" in piped.stdout
    for columns, wanted in ((90, b"\x1b[7m  "), (89, b"no QR code: it takes 90 columns")):
        terminal, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        subprocess.run([*shown, "--qr"], env=environment, stdout=end, timeout=WITHIN_S, check=True)
        os.close(end)
        said = b""
        with contextlib.suppress(OSError):  # EIO: nobody has its other end, and all was read
            while part := os.read(terminal, 1 << 16):
                said += part
        os.close(terminal)
        assert wanted in said
        assert (b"\x1b[7m" in said) == (columns == 90)
