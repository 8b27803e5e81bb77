"""Many boards from a CSV: stopped anywhere and given again, the result is the same."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.provisioning.commands import WITHIN_S, Ended, enrol, laterne, running
from tests.provisioning.fake_board import WAIT_S, FakeBoard

BOARDS = 200


@pytest.fixture
def crowd() -> Iterator[list[FakeBoard]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeBoard()) for _ in range(BOARDS)]


@pytest.fixture
def three() -> Iterator[list[FakeBoard]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeBoard()) for _ in range(3)]


def batch(authority: Path, table: Path, *more: object, code: int | None = 0) -> Ended:
    return laterne("board", "enrol", "--csv", table, "--authority", authority, *more, code=code)


def listed(authority: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = laterne("board", "list", "--authority", authority, "--json").json()
    return rows


def write(table: Path, boards: Sequence[FakeBoard], port: bool = True) -> Path:
    lines = ["id,port,post,latitude,longitude" if port else "id,post,latitude,longitude"]
    for number, board in enumerate(boards, 1):
        cells = [f"LE-{number:04}", *([board.port] if port else []), f"P-{number}", f"48.{number:04}", "11.5"]
        lines.append(",".join(cells))
    table.write_text("\n".join(lines) + "\n")
    return table


def test_200_boards_from_a_csv_interrupted_twice_with_the_same_result(
    authority: Path, crowd: list[FakeBoard], tmp_path: Path
) -> None:
    table = write(tmp_path / "boards.csv", crowd)
    arguments = ["board", "enrol", "--csv", str(table), "--authority", str(authority), "--jobs", "8"]
    given: dict[str, bytes] = {}
    # Killed before a board has its credential, and stopped by Ctrl-C when one has it and nobody knows.
    for number, acted, how in ((60, False, signal.SIGKILL), (140, True, signal.SIGINT)):
        crowd[number].stop_at = (4, acted)
        with running(*arguments) as command:
            assert crowd[number].stopped.wait(WITHIN_S)
            command.send_signal(how)
            _, said = command.communicate(timeout=WITHIN_S)
        assert command.returncode in (-signal.SIGKILL, 130)
        assert "Traceback" not in said
        crowd[number].go_on()
        for board in crowd:
            if board.credential is not None:
                assert given.setdefault(board.port, board.credential) == board.credential
        assert len(given) > number - 20
    done = batch(authority, table, "--json").json()
    assert (done["enrolled"] + done["already"], done["failed"]) == (BOARDS, 0)
    assert done["already"] > 100
    assert batch(authority, table, "--json").json()["already"] == BOARDS
    # As an undisturbed run: each row has the board of its port, each board the credential it was given first.
    for number, (board, row) in enumerate(zip(crowd, listed(authority), strict=True), 1):
        assert (board.board, row["id"], row["state"]) == (f"LE-{number:04}", f"LE-{number:04}", "enrolled")
        assert row["kid"] == board.kid.hex()
        assert (row["post"], row["latitude"], row["longitude"]) == (f"P-{number}", float(f"48.{number:04}"), 11.5)
        assert given.get(board.port, board.credential) == board.credential
    assert laterne("audit", "verify", "--authority", authority, code=None).code == 0


def test_dry_run_says_what_would_be_done_and_does_nothing(
    authority: Path, three: list[FakeBoard], tmp_path: Path
) -> None:
    enrol(three[0], "LE-0001", authority)
    enrol(three[2], "LE-0009", authority)
    table = write(tmp_path / "boards.csv", three)
    before = listed(authority)
    done = batch(authority, table, "--dry-run", "--json", code=1).json()
    assert [row["result"] for row in done["rows"]] == ["already", "would enrol", "failed"]
    assert done["rows"][0]["said"] == "hangs at P-1 now"
    assert three[1].kid.hex() in done["rows"][1]["said"]
    assert "is enrolled already, and not as LE-0003" in done["rows"][2]["said"]
    assert listed(authority) == before
    assert three[1].asked == ["Hello"]


def test_what_fails_is_told_and_holds_up_nobody_else(authority: Path, three: list[FakeBoard], tmp_path: Path) -> None:
    table = write(tmp_path / "boards.csv", three)
    three[1].forget_digest = True
    done = batch(authority, table, code=1)
    assert "LE-0002 stays pending" in " ".join(done.out.split())
    assert "2 enrolled, 1 failed." in done.out
    assert "what is done stays done" in done.err
    three[1].forget_digest = False
    assert batch(authority, table).out == "1 enrolled, 2 already.\n"


def test_rows_without_a_port_take_boards_in_their_order_and_boards_keep_what_they_have(
    authority: Path, three: list[FakeBoard], tmp_path: Path
) -> None:
    table = write(tmp_path / "boards.csv", three, port=False)
    assert "--port-from PATTERN" in batch(authority, table, code=2).err
    assert "There is no port" in batch(authority, table, "--port-from", tmp_path / "none*", code=2).err
    # The second is pending: its credential was lost on the way.
    three[0].stop_at = (4, False)
    arguments = ("--port", three[0].port, "--id", "LE-0002", "--authority", authority)
    with running("board", "enrol", *arguments, quiet=True) as command:
        assert three[0].stopped.wait(WAIT_S)
        command.kill()
    three[0].go_on()
    first_two = [f"--port-from={board.port}" for board in three[:2]]
    done = batch(authority, table, *first_two, "--json", code=1).json()
    assert [row["result"] for row in done["rows"]] == ["enrolled", "enrolled", "failed"]
    assert "No board is left for it" in done["rows"][2]["said"]
    assert [board.board for board in three] == ["LE-0002", "LE-0001", None]
    assert batch(authority, table, f"--port-from={three[2].port}", "--pending").out == "1 enrolled, 2 already.\n"
    assert [row["state"] for row in listed(authority)] == ["enrolled", "enrolled", "pending"]


def test_a_spreadsheet_in_german_will_do(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    table = tmp_path / "Leuchten.csv"
    table.write_text(f"\ufeffID;Port;Post;Latitude;Longitude\r\nLE-1;{board.port};P-1;48,1374;-11,5\r\n")
    batch(authority, table)
    (row,) = listed(authority)
    assert (row["id"], row["latitude"], row["longitude"]) == ("LE-1", 48.1374, -11.5)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must name the columns"),
        (b"id,port\n", "has 0 rows"),
        (b"name,port\nA,b\n", "must name the columns"),
        (b"id,port\nA,p\nA,q\n", "line 3: A stands there twice"),
        (b"id,port\nA,p\nB,p\n", "line 3: port p stands there twice"),
        (b"id,port\nA/B,p\n", "line 2: 'A/B' will not do"),
        (b"id,port\nA,p,q\n", "line 2: it has not as many cells"),
        (b"id,port,post,latitude\nA,p,P,1\n", "line 2: a place has"),
        (b"id,port,post,latitude,longitude\nA,p,P,nan,1\n", "is no number of degrees from -90 to 90"),
        (b"id,port,post,latitude,longitude\nA,p,P,1,181\n", "is no number of degrees from -180 to 180"),
        (b'id,port\n"A,p\n', "Nothing was done"),
        (b"id,port\n\xff,p\n", "is not text in UTF-8"),
    ],
)
def test_a_wrong_table_is_refused_before_anything_is_done(
    authority: Path, tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert says in batch(authority, tmp_path / "t.csv", code=2).err


def test_one_board_or_a_table_but_not_both(authority: Path, tmp_path: Path) -> None:
    for arguments in (("--id", "A"), ("--port", "p"), ("--csv", tmp_path / "t", "--id", "A"), ("--dry-run",)):
        assert laterne("board", "enrol", "--authority", authority, *arguments, code=2).out == ""
