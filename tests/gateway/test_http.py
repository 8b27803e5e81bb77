"""HTTP answers that no server should give: bounded, and without our secret in what is said of them."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from laterne_gateway.route_settings import SensorThingsSettings
from laterne_gateway.routes.http import Http, HttpError
from laterne_gateway.routes.sta_server import AwayError, RefusedError, Server

MIB = 1 << 20
AT_MOST = MIB
HEAD = b"HTTP/1.1 200 OK\r\n"
WITHIN_S = 30.0


@contextlib.asynccontextmanager
async def server(head: bytes, piece: bytes = b"", times: int = 0) -> AsyncIterator[str]:
    """Says the head to whoever asks, and then the piece so many times."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.release()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            for _ in range(times):
                writer.write(piece)
                await writer.drain()
            writer.close()
        writer.transport.abort()  # who asked may have gone in the middle
        answered.release()

    asked, answered = asyncio.Semaphore(0), asyncio.Semaphore(0)
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        while not asked.locked():
            await asked.acquire()
            await answered.acquire()


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"x" * MIB, id="a chunk of -1"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + b"x" * MIB + b"\r\n", id="chunks"),
        pytest.param(HEAD + b"\r\n", b"x" * MIB, id="no length"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", b"x" * MIB, id="a length of -1"),
        pytest.param(HEAD + b"Content-Length: 99999999999\r\n\r\n", b"x" * MIB, id="a great length"),
        pytest.param(HEAD, b"A: " + b"x" * 60_000 + b"\r\n", id="headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 30_000, id="never the answer itself"),
    ],
)
async def test_an_answer_without_an_end_takes_no_memory(head: bytes, piece: bytes) -> None:
    async with server(head, piece, 100) as url:
        http = Http(url, 1, AT_MOST, None)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(HttpError):
            await http.request("GET", "/", None, {}, WITHIN_S)
        http.close()
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 30 * MIB


async def test_an_answer_of_just_so_many_bytes_is_taken() -> None:
    async with server(HEAD + b"Content-Length: %d\r\n\r\n" % AT_MOST, b"x" * AT_MOST, 1) as url:
        http = Http(url, 1, AT_MOST, None)
        assert len((await http.request("GET", "/", None, {}, WITHIN_S)).body) == AT_MOST
        http.close()


@pytest.mark.parametrize(("username", "header"), [(None, None), ("me", None), (None, "X-Api-Key")])
async def test_what_a_server_says_steers_no_terminal_and_holds_no_secret(
    tmp_path: Path, username: str | None, header: str | None
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct-horse\n")
    said = "\x1b[2Jno correct-horse bWU6Y29ycmVjdC1ob3JzZQ== " + "x" * 5000
    async with server(f"HTTP/1.1 400 no\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode()) as url:
        asked = Server(SensorThingsSettings("city", url, username=username, header=header, secret_file=secret))
        async with asked.connected():
            with pytest.raises(RefusedError) as caught:
                await asked.get("Things")
    told = str(caught.value)
    assert "correct-horse" not in told
    assert "bWU6" not in told or username is None
    assert told.isprintable()
    assert len(told) < 400


async def test_a_first_line_that_is_none_steers_no_terminal() -> None:
    async with server(b"\x1b]0;mine\x07\r\n\r\n") as url:
        asked = Server(SensorThingsSettings("city", url))
        async with asked.connected():
            with pytest.raises(AwayError) as caught:
                await asked.get("Things")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"correct\nhorse", b"", b"correct\xc3\xa4horse", b"correct\0horse"])
async def test_a_secret_that_no_header_takes_is_told_without_it(tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    asked = Server(SensorThingsSettings("city", "http://127.0.0.1:1", secret_file=secret))
    with pytest.raises(ValueError, match="must hold one line") as caught:
        async with asked.connected():
            pass
    assert "horse" not in str(caught.value)
