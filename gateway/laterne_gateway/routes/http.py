"""HTTP/1.1 requests to one server, a few at a time: the standard library's http.client, a thread for each under way.

An asyncio HTTP library takes 10 MiB, a fifth of what a gateway may have; a request of a route carries a hundred
observations, so the thread's price does not count. http.client knows what an answer is; what it leaves open is here:

1. A request has a deadline as a whole. When it passes, or whoever waits is cancelled, the socket is shut down, and the
   thread ends with it. Connecting is the event loop's, because nothing could end a thread in it.
2. Connections are kept. One that the server has closed meanwhile can be read from, so it is not used again. When it
   closes in the very moment, nobody knows whether it has had the request: a GET goes once more, anything else fails.
3. An answer is bounded where its bytes come in, whatever it says of its length (http.client takes a chunk of -1 bytes
   for all that will ever come); and one that ends too early is none.
"""

import asyncio
import contextlib
import http.client
import io
import select
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_BYTES = 65536
HEAD_BYTES = 65536  # of an answer, beside its body: http.client takes 6 MiB

Question = tuple[str, str, bytes | None, dict[str, str]]  # method, target, body, headers


class HttpError(Exception):
    """There was no whole answer: nobody knows what the server has done. What it came from is its cause."""


class Answer(NamedTuple):
    """headers: looked up in any case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class _Bounded(io.RawIOBase):
    """A socket's bytes, so many of them. Raises ValueError: there are more."""

    def __init__(self, raw: io.RawIOBase, at_most: int) -> None:
        self._raw = raw
        self._left = at_most

    def readable(self) -> bool:
        return True

    def readinto(self, into: "WriteableBuffer") -> int | None:
        count = self._raw.readinto(into)
        self._left -= count or 0
        if self._left < 0:
            raise ValueError("an answer of more bytes than are read")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class Http:
    """url: `http(s)://host[:port]...`. limit: requests at a time. max_bytes: of an answer. context: of TLS.

    Use it in one event loop, and close() it.
    """

    def __init__(self, url: str, limit: int, max_bytes: int, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._default_port = 443 if parts.scheme == "https" else 80
        self._port = parts.port or self._default_port
        self._context = context
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix="http")
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Requests under way have ended: whoever waited for them was cancelled."""
        while self._idle:
            self._idle.pop().close()
        self._threads.shutdown(wait=False)

    async def request(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], within_s: float
    ) -> Answer:
        """target: path and query, encoded. Raises HttpError."""
        try:
            async with self._slots, asyncio.timeout(within_s):
                while True:
                    connection = self._kept()
                    is_new = connection is None
                    if connection is None:
                        connection = await self._connect(within_s)
                    try:
                        return await self._exchange(connection, (method, target, body, headers))
                    except (http.client.RemoteDisconnected, ConnectionError):
                        if is_new or method != "GET":
                            raise
        except TimeoutError as why:
            raise HttpError(f"no answer within {within_s} s") from why
        except (OSError, http.client.HTTPException, ValueError) as why:
            raise HttpError(f"{type(why).__name__}: {why}") from why

    def _kept(self) -> http.client.HTTPConnection | None:
        while self._idle:
            connection = self._idle.pop()
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            held = connection.sock.pending() if isinstance(connection.sock, ssl.SSLSocket) else 0
            if not held and not poll.poll(0):
                return connection
            connection.close()
        return None

    async def _connect(self, within_s: float) -> http.client.HTTPConnection:
        loop, why = asyncio.get_running_loop(), OSError(f"{self._host} has no address")
        for family, kind, protocol, _, address in await loop.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        ):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.setblocking(False)
                await loop.sock_connect(plain, address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                plain.settimeout(within_s)
                connection = http.client.HTTPConnection(self._host, self._port)
                connection.default_port = self._default_port
                connection.response_class = self._response  # type: ignore[assignment]  # typed as the class itself
                # The handshake is the thread's.
                connection.sock = plain if self._context is None else self._sealed(self._context, plain)
            except OSError as refused:
                plain.close()
                why = refused
            except BaseException:
                plain.close()
                raise
            else:
                return connection
        raise why

    def _sealed(self, context: ssl.SSLContext, plain: socket.socket) -> ssl.SSLSocket:
        return context.wrap_socket(plain, server_hostname=self._host, do_handshake_on_connect=False)

    async def _exchange(self, connection: http.client.HTTPConnection, question: Question) -> Answer:
        sock = connection.sock  # connection forgets it when the server wants to close it
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._ask, connection, question)
        try:
            answer, is_kept = await asyncio.shield(work)
        except BaseException:
            if not work.done():
                # Only the system call: an SSLSocket's own shutdown() would take from the thread what it works with.
                with contextlib.suppress(OSError):  # it is not connected any more: the thread will find the same
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # seen
            connection.close()
            raise
        if is_kept:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    # Below: in a thread.

    def _response(self, *given: Any, **named: Any) -> http.client.HTTPResponse:
        made = http.client.HTTPResponse(*given, **named)
        made.fp = io.BufferedReader(_Bounded(made.fp.detach(), self._max_bytes + HEAD_BYTES))
        return made

    def _ask(self, connection: http.client.HTTPConnection, question: Question) -> tuple[Answer, bool]:
        sealed = connection.sock
        if isinstance(sealed, ssl.SSLSocket) and sealed.version() is None:
            sealed.do_handshake()
        connection.request(*question)
        with connection.getresponse() as response:  # one that is not read to its end holds the socket
            answer = Answer(response.status, response.headers, self._read(response))
        return answer, not response.will_close

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        if response.length is not None:
            if response.length > self._max_bytes:
                raise ValueError(f"an answer of more than {self._max_bytes} bytes")
            return response.read()  # raises IncompleteRead
        body = bytearray()
        while data := response.read(
            min(READ_BYTES, self._max_bytes + 1 - len(body))
        ):  # in chunks, each of which must be whole; or to the end
            body += data
            if len(body) > self._max_bytes:
                raise ValueError(f"an answer of more than {self._max_bytes} bytes")
        return bytes(body)
