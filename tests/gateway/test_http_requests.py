"""HTTP requests of a route, at a server that says byte for byte what a test wants."""

import asyncio
import contextlib
import re
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.gateway.test_tls import Certificates

from laterne_gateway.routes.http import Http, HttpError
from laterne_gateway.routes.tls import certificate_words

MAX_BYTES = 1000
KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """script: given the number of the connection. Its port."""
    count = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await script(count - 1, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


@contextlib.contextmanager
def asking(port: int, context: ssl.SSLContext | None = None) -> Iterator[Http]:
    scheme = "http" if context is None else "https"
    made = Http(f"{scheme}://localhost:{port}", 2, MAX_BYTES, context)
    try:
        yield made
    finally:
        made.close()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def request(reader: asyncio.StreamReader) -> bytes:
    """Its head, and its content taken: what is closed with bytes unread resets the connection."""
    read = await head(reader)
    length = re.search(rb"content-length: (\d+)", read, re.IGNORECASE)
    return read + (await reader.readexactly(int(length[1])) if length else b"")


def says(*parts: bytes) -> Script:
    """Each connection is answered once with these bytes, and closed."""

    async def script(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()

    return script


async def ask(http: Http, method: str = "GET", within_s: float = 20.0) -> bytes:
    return (await http.request(method, "/v1.1/x", None if method == "GET" else b"{}", {}, within_s)).body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "said", [KEPT, CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nok"], ids=range(3)
)
async def test_a_whole_answer_is_read_however_its_length_is_told(said: bytes) -> None:
    async with server(says(said)) as port:
        with asking(port) as http:
            assert await ask(http) == b"ok"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "IncompleteRead"),
        (CHUNKED + b"9\r\nok", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "more than 1000 bytes"),
        (CHUNKED + b"7d0\r\n" + b"x" * 2000, "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "HTTPException"),
        (b"\x00\x01\x02 not of HTTP\r\n\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
async def test_half_an_answer_or_too_much_of_it_is_none(said: bytes, why: str) -> None:
    async with server(says(said)) as port:
        with asking(port) as http, pytest.raises(HttpError, match=why):
            await ask(http, "POST")


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    closed = asyncio.Event()

    async def script(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(KEPT)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with server(script) as port:
        with asking(port) as http:
            for _ in range(3):
                closed.clear()
                assert await ask(http, "POST") == b"ok"
                await closed.wait()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_may_have_been_done_is_not_asked_twice(method: str) -> None:
    """The server closes a kept connection instead of answering: a GET goes once more, on a new one."""
    requests: list[int] = []

    async def script(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            requests.append(number)
            if len(requests) == 2:
                return
            writer.write(KEPT)

    async with server(script) as port:
        with asking(port) as http:
            await ask(http)
            if method == "GET":
                assert await ask(http) == b"ok"
                assert requests == [0, 0, 1]
            else:
                with pytest.raises(HttpError):
                    await ask(http, "POST")
                assert requests == [0, 0]


async def dribble(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head(reader)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + bytes(900):
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0.05)


def threads() -> int:
    """Those that are busy: idle ones of a closed pool end by themselves."""
    return sum(1 for one in threading.enumerate() if one.name.startswith("http"))


async def test_a_deadline_is_for_the_whole_answer_and_ends_the_thread() -> None:
    async with server(dribble) as port:
        with asking(port) as http, pytest.raises(HttpError, match="no answer within"):
            await ask(http, within_s=0.3)
        while threads():  # noqa: ASYNC110 - the end of a thread tells nobody
            await asyncio.sleep(0.01)


async def test_who_is_cancelled_leaves_no_thread_behind() -> None:
    asked = asyncio.Event()

    async def silent(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        asked.set()
        await reader.read()

    async with server(silent) as port:
        with asking(port) as http:
            asking_now = asyncio.create_task(ask(http, within_s=600.0))
            await asked.wait()
            asking_now.cancel()
            await asyncio.gather(asking_now, return_exceptions=True)
        while threads():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_tls_is_checked_and_a_handshake_has_the_deadline_too(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certificates")
    trusting = ssl.create_default_context(cafile=str(certificates.ca))
    contexts = []
    for name in ("localhost", "elsewhere.example"):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(*certificates.issue(name))
    async with server(says(KEPT), contexts[0]) as port:
        with asking(port, trusting) as http:
            assert await ask(http, "POST") == b"ok"
    async with server(says(KEPT), contexts[1]) as port:
        with asking(port, trusting) as http, pytest.raises(HttpError) as found:
            await ask(http)
        assert "its certificate is for another name" in str(certificate_words(found.value, 0))

    async def never(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(never) as port:
        with asking(port, trusting) as http, pytest.raises(HttpError, match="no answer within"):
            await ask(http, within_s=0.2)
