"""laterne-gateway buffer verify, export, vacuum: beside a running gateway, and on a database that is wrong."""

import asyncio
import json
import sqlite3
import subprocess
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.demo_run import LATERNE
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess
from tests.gateway.test_command_line import in_thread
from tests.servers import Mosquitto

from laterne_gateway.buffer_commands import ROWS_AT_ONCE
from laterne_gateway.database import FILE_NAME

REPORTS = ROWS_AT_ONCE // 2 + 20  # of each of two boards: more than one step


@pytest.fixture
async def gateway(tmp_path: Path, line_of: Callable[..., FakeLine]) -> AsyncIterator[GatewayProcess]:
    """Runs without a broker and has taken the reports of two boards."""
    boards = [FakeBoard("LE-1", 1), FakeBoard("LE-2", 2)]
    for board in boards:
        board.close_reports(REPORTS)
    made = GatewayProcess(tmp_path, boards, [line_of(*boards)], Mosquitto(tmp_path / "later"))
    await made.start()
    for board in boards:
        await board.forgets(REPORTS)
    yield made
    await made.end()


async def asked(gateway: GatewayProcess, action: str, *more: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, document, stderr."""
    done = await in_thread("buffer", action, "--json", "--config", str(gateway.config), *more)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


async def test_verify_and_export_work_beside_a_running_gateway_and_vacuum_says_that_it_must_be_stopped(
    tmp_path: Path, gateway: GatewayProcess
) -> None:
    code, found, _ = await asked(gateway, "verify")
    assert (code, found["ok"], found["reports"], found["signatures"]) == (0, True, 2 * REPORTS, 2 * REPORTS)
    assert found["lanes"] == [{"route": "mqtt", "delivered": 0, "upto": None, "waiting": 2 * REPORTS}]
    file = tmp_path / "exported.cbor"
    code, found, _ = await asked(gateway, "export", "-o", str(file))
    assert (code, found["reports"], found["damaged"]) == (0, 2 * REPORTS, 0)
    done = await asyncio.to_thread(
        laterne,
        "verify",
        str(file),
        "--json",
        "--roster",
        str(tmp_path / "roster.cbor"),
        "--trust",
        str(tmp_path / "trust.cbor"),
    )
    assert json.loads(done)["reports_verified"] == 2 * REPORTS
    before = file.read_bytes()
    code, _, said = await asked(gateway, "export", "-o", str(file))
    assert (code, "is there already" in said, file.read_bytes() == before) == (1, True, True)
    code, _, said = await asked(gateway, "vacuum")
    assert (code, "stop it first" in said) == (1, True)
    assert await gateway.stop() == 0


def laterne(*arguments: str) -> str:
    done = subprocess.run([LATERNE, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_vacuum_gives_back_what_delivered_reports_have_left(tmp_path: Path, gateway: GatewayProcess) -> None:
    assert await gateway.stop() == 0
    database = sqlite3.connect(tmp_path / "state" / FILE_NAME)
    database.execute(f"delete from report where id <= {2 * REPORTS - 10}")
    database.execute(f"update lane set delivered = {2 * REPORTS - 10}")
    database.commit()
    database.close()
    code, found, said = await asked(gateway, "vacuum")
    assert code == 0, said
    assert found["bytes_after"] < found["bytes_before"] / 4
    code, found, _ = await asked(gateway, "verify")
    assert (code, found["reports"], found["signatures"]) == (0, 10, 10)
    assert found["lanes"][0]["waiting"] == 10


DAMAGES = [
    ("a changed body", "update report set body = zeroblob(length(body)) where id = 700", "was changed on the card"),
    ("a row of another board", "update report set board = 'LE-3', crc = forged('LE-3', sequence, body) where id = 7",
     "the report in it is"),
    ("a forged report", "update report set body = other(body), crc = forged(board, sequence, other(body)) where id = 9",
     "signature"),
    ("a chain behind its reports", "update chain set sequence = 4 where board = 'LE-2'", "its chain stands at 4"),
    ("a lane beyond its end", "update lane set upto = 5, delivered = 9", "a lane from 0 to 5 stands at 9"),
]  # fmt: skip


async def test_verify_tells_what_is_wrong(tmp_path: Path, gateway: GatewayProcess) -> None:

    assert await gateway.stop() == 0
    file = tmp_path / "state" / FILE_NAME
    whole = file.read_bytes()
    for name, damage, words in DAMAGES:
        file.write_bytes(whole)
        database = sqlite3.connect(file)
        database.create_function("other", 1, lambda body: body[:-1] + bytes([body[-1] ^ 1]))
        database.create_function(
            "forged", 3, lambda board, number, body: zlib.crc32(body, zlib.crc32(f"{board} {number} ".encode()))
        )
        database.execute(damage)
        database.commit()
        database.close()
        code, found, _ = await asked(gateway, "verify")
        assert code == 1, name
        assert words in str(found["problems"]), (name, found["problems"])
    file.write_bytes(whole[:4096] + bytes(8192) + whole[12288:])
    assert (await asked(gateway, "verify"))[0] == 1
    file.write_bytes(bytes(100) + whole[100:])
    code, _, said = await asked(gateway, "verify")
    assert (code, "sets a damaged database aside" in said) == (1, True)


async def test_without_a_database_there_is_a_sentence(tmp_path: Path, line_of: Callable[..., FakeLine]) -> None:
    board = FakeBoard()
    made = GatewayProcess(tmp_path, [board], [line_of(board)], Mosquitto(tmp_path / "later"))
    for action, more in (("verify", ()), ("export", ("-o", str(tmp_path / "x"))), ("vacuum", ())):
        code, _, said = await asked(made, action, *more)
        assert (code, "is not there" in said) == (1, True)
    assert not (tmp_path / "x").exists()
    assert (await in_thread("buffer", "burn", "--config", str(made.config))).returncode == 2
