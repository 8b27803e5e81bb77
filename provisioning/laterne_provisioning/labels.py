"""Labels for boards: a QR code that a phone or a later command reads, and the same in words for people.

The code holds `laterne:ID:THUMBPRINT`: the board's id, and the RFC 9679 thumbprint of its signing key (SHA-256) as 43
characters of base64url. Its first 8 bytes are the kid that stands beside it, in words and in hexadecimal. Nothing on a
label is secret. Level Q: a quarter of the code may be scratched or dirty.

A label is 63.5 x 38.1 mm, a sheet is A4 with 3 x 7 of them, as adhesive sheets of 21 labels are sold.
"""

import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laterne_protocol import credential
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.output import base64url
from laterne_provisioning.registry import ENROLLED, PENDING, Board
from laterne_provisioning.words import words

if TYPE_CHECKING:
    import segno

LABEL_MM = (63.5, 38.1)
SHEET_MM = (210.0, 297.0)
COLUMNS, ROWS = 3, 7
LEFT_MM, TOP_MM, NEXT_COLUMN_MM = 7.25, 15.15, 66.0
QR_MM = 30.0  # with its quiet zone; 37 modules are 0.67 mm each, which a phone reads from an arm's length
QUIET_MODULES = 4  # ISO/IEC 18004, 6.3.8
TEXT_LEFT_MM, TEXT_RIGHT_MM = 31.5, 2.0
DOTS_PER_INCH = 600
MAX_LABELS = 2100  # a hundred sheets
FORMATS = (".pdf", ".png", ".svg")

_WIDEST_EM = 0.7  # of an average letter in capitals, for the sizes that are not measured


@dataclass(frozen=True)
class Line:
    """A line of text on a label. base_mm: its base line from the top edge. size_mm: of the letters, at most."""

    text: str
    base_mm: float
    size_mm: float


@dataclass(frozen=True)
class Label:
    """What stands on a label. modules: the QR code's rows, true is black, without the quiet zone."""

    modules: tuple[tuple[bool, ...], ...]
    lines: tuple[Line, ...]


def content(board: Board) -> str:
    """What a board's QR code says."""
    return f"laterne:{board.id}:{base64url(credential.thumbprint(board.sign_key))}"


def code(board: Board) -> "segno.QRCode":
    """The QR code of a board."""
    import segno

    return segno.make_qr(content(board), error="q", boost_error=False)


def label(board: Board) -> Label:
    """The label of a board. Raises OperatorError: a board that is none any more."""
    if board.state not in (PENDING, ENROLLED):
        raise OperatorError(f"{board.id} is {board.state}: leave it out.")
    kid = credential.kid(board.sign_key)
    first, second, third, fourth = words(kid).split("-")
    lines = [
        Line(board.id, 9.0, 5.0),
        Line(f"{first}-{second}-", 16.5, 3.4),
        Line(f"{third}-{fourth}", 21.0, 3.4),
        Line(kid.hex(), 26.5, 2.8),
    ]
    if board.place is not None:
        lines.append(Line(board.place.post, 32.5, 3.4))
    modules = tuple(tuple(bool(module) for module in row) for row in code(board).matrix)
    return Label(modules, tuple(lines))


def file(labels: Sequence[Label], suffix: str) -> bytes:
    """One label as it is, or sheets of many. suffix: one of FORMATS. Raises UsageError."""
    if suffix not in FORMATS:
        raise UsageError(f"Labels are written as {', '.join(FORMATS)}: give the file such a name.")
    pages = [[(0.0, 0.0, labels[0])]] if len(labels) == 1 else _sheets(labels)
    size = LABEL_MM if len(labels) == 1 else SHEET_MM
    if suffix != ".svg" and find_spec("PIL") is None:
        raise UsageError(f"Labels as {suffix} need Pillow: pip install pillow, or write an .svg.")
    if suffix == ".pdf":
        return _pdf(pages, size)
    if len(pages) > 1:
        raise UsageError(f"{len(labels)} labels need {len(pages)} sheets: write a .pdf, or name at most 21.")
    return _svg(pages[0], size) if suffix == ".svg" else _png(pages[0], size)


def require_possible(path: Path, count: int) -> None:
    """That so many labels can be written to this file, asked before anything is done. Raises UsageError."""
    suffix = suffix_of(path)
    if suffix not in FORMATS:
        raise UsageError(f"Labels are written as {', '.join(FORMATS)}: give the file such a name.")
    if suffix != ".svg" and find_spec("PIL") is None:
        raise UsageError(f"Labels as {suffix} need Pillow: pip install pillow, or write an .svg.")
    if suffix != ".pdf" and count > COLUMNS * ROWS:
        raise UsageError(f"{count} labels need several sheets: write a .pdf.")
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written: name a file in a directory that is there and that is yours.")


def suffix_of(path: Path) -> str:
    """The format that a file's name asks for."""
    return path.suffix.lower()


_Page = Sequence[tuple[float, float, Label]]


def _sheets(labels: Sequence[Label]) -> list[list[tuple[float, float, Label]]]:
    pages: list[list[tuple[float, float, Label]]] = []
    for at, one in enumerate(labels):
        row, column = divmod(at % (COLUMNS * ROWS), COLUMNS)
        if row == column == 0:
            pages.append([])
        pages[-1].append((LEFT_MM + column * NEXT_COLUMN_MM, TOP_MM + row * LABEL_MM[1], one))
    return pages


def _svg(page: _Page, size: tuple[float, float]) -> bytes:
    width, height = size
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" '
        f'viewBox="0 0 {width} {height}"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for left, top, one in page:
        module = QR_MM / (len(one.modules) + 2 * QUIET_MODULES)
        edge = QUIET_MODULES * module
        runs = [
            f"M{column} {row}h1v1h-1z"
            for row, modules in enumerate(one.modules)
            for column, black in enumerate(modules)
            if black
        ]
        at = f"translate({left + edge:.3f} {top + (LABEL_MM[1] - QR_MM) / 2 + edge:.3f}) scale({module:.5f})"
        out.append(f'<path shape-rendering="crispEdges" transform="{at}" d="{"".join(runs)}"/>')
        for line in one.lines:
            room = LABEL_MM[0] - TEXT_LEFT_MM - TEXT_RIGHT_MM
            letters = min(line.size_mm, room / (_WIDEST_EM * len(line.text)))
            out.append(
                f'<text x="{left + TEXT_LEFT_MM:.2f}" y="{top + line.base_mm:.2f}" font-size="{letters:.2f}" '
                f'font-family="sans-serif">{html.escape(line.text)}</text>'
            )
    return ("\n".join([*out, "</svg>"]) + "\n").encode()


def _png(page: _Page, size: tuple[float, float]) -> bytes:
    whole = io.BytesIO()
    _painted(page, size).save(whole, "PNG", dpi=(DOTS_PER_INCH, DOTS_PER_INCH))
    return whole.getvalue()


def _pdf(pages: Sequence[_Page], size: tuple[float, float]) -> bytes:
    whole = io.BytesIO()
    first, *more = [_painted(page, size) for page in pages]
    # Black and white at 600 dots an inch, as the fax machines compressed it: a sheet is some 100 kB.
    first.save(whole, "PDF", resolution=DOTS_PER_INCH, save_all=True, append_images=more)
    return whole.getvalue()


def _painted(page: _Page, size: tuple[float, float]) -> Any:
    # Imported here: most commands draw nothing, and an .svg needs no Pillow.
    from PIL import Image, ImageDraw, ImageFont

    def dots(mm: float) -> int:
        return round(mm * DOTS_PER_INCH / 25.4)

    image = Image.new("1", (dots(size[0]), dots(size[1])), 1)
    pen = ImageDraw.Draw(image)
    for left, top, one in page:
        # Whole dots for each module, or the code would be blurred.
        module = dots(QR_MM) // (len(one.modules) + 2 * QUIET_MODULES)
        edge = (dots(QR_MM) - module * len(one.modules)) // 2
        x, y = dots(left) + edge, dots(top + (LABEL_MM[1] - QR_MM) / 2) + edge
        for row, modules in enumerate(one.modules):
            for column, black in enumerate(modules):
                if black:
                    at = (x + column * module, y + row * module)
                    pen.rectangle((at, (at[0] + module - 1, at[1] + module - 1)), 0)
        room = dots(LABEL_MM[0] - TEXT_LEFT_MM - TEXT_RIGHT_MM)
        for line in one.lines:
            letters = dots(line.size_mm)
            while ImageFont.load_default(letters).getlength(line.text) > room:
                letters -= 1
            font = ImageFont.load_default(letters)
            pen.text((dots(left + TEXT_LEFT_MM), dots(top + line.base_mm)), line.text, 0, font, anchor="ls")
    return image
