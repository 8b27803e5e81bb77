"""An OGC SensorThings 1.1 server over HTTP (OGC 18-088): requests, and what their answers may mean.

An answer tells one of three things. The server took it. It refuses this content, and always will (RefusedError). Or
nobody knows: no connection, no answer in time, half an answer, 5xx. Then what was sent may be there (AwayError,
FailedError), and only reading it back tells. What a server says is bounded before it is read.
"""

import asyncio
import json
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from laterne_gateway.route_settings import SensorThingsSettings
from laterne_gateway.routes.http import Http, HttpError
from laterne_gateway.routes.tls import certificate_words

# A page of 100 observations has 40 KiB, an answer to 1,000 rows 120. Read as JSON the worst of it takes thirty times as
# much memory, and the service has 160 MiB.
MAX_ANSWER_BYTES = 1024 * 1024
PAGE = 100  # one server refuses more (facts/urban_platform.md, 8)
MAX_PAGES = 1000
MAX_ENTITIES = 1000  # of a collection that is taken as a whole: of ours there is one
# Statuses that say nothing of the content: credentials, address, too much at once. For the operator, or for later.
NOT_ABOUT_CONTENT = {401, 403, 404, 405, 407, 408, 421, 425, 426, 429, 431, 451}
NOT_FOR_US = {401, 403, 404, 405}  # to a PATCH or DELETE: many may only add
SERVER_FAILS = 500
MAX_RETRY_AFTER_S = 3600.0  # a server that asks for more may have come back long before
MAX_LOOKED_AT, MAX_SAID = 2000, 200  # of what a server says when it refuses; a secret in it is not cut in two

Json = Any  # as json.loads() gives it: judged where it is read


class AwayError(Exception):
    """The server cannot be used now, or not as it is configured. after_s: when it wants to be asked again.

    status: of HTTP, if it has answered.
    """

    def __init__(self, reason: str, after_s: float = 0.0, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.status = status

    @property
    def is_gone(self) -> bool:
        """It does not know what it was asked for."""
        return self.status == 404


class FailedError(Exception):
    """The server has failed with this request (5xx): it may have done it, or not."""


class RefusedError(Exception):
    """The server refuses this content (4xx), and will again. status: of HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status


class Server:
    """Use inside connected(). url: of the service, with its version: http://host/v1.1."""

    def __init__(self, settings: SensorThingsSettings) -> None:
        self._settings = settings
        self._path = urlsplit(settings.url).path.rstrip("/")
        self._http: Http | None = None
        self._headers: dict[str, str] = {}
        self._secrets: tuple[str, ...] = ()  # what of ours a server could say again

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Meanwhile there are connections. Raises OSError, ssl.SSLError: a file of the settings cannot be used."""
        loop = asyncio.get_running_loop()
        self._headers, self._secrets, context = await loop.run_in_executor(None, _read_files, self._settings)
        http = self._http = Http(self._settings.url, self._settings.parallel + 2, MAX_ANSWER_BYTES, context)
        try:
            yield
        finally:
            http.close()
            self._http = None

    async def get(self, path: str, **options: str | int) -> Json:
        """The answer's JSON. options: of OData, without the `$`."""
        # Encoded by us, once: servers differ in what they take for a quoted slash or a plus.
        query = "&".join(f"${name}={quote(str(value))}" for name, value in options.items())
        _, found = await self._ask("GET", f"{path}?{query}" if query else path)
        return found

    async def all(self, path: str, **options: str | int) -> list[dict[str, Json]]:
        """All entities of a collection, MAX_ENTITIES at most."""
        found: list[dict[str, Json]] = []
        async for values in self.pages(path, **options):
            found += values
            if len(found) > MAX_ENTITIES:
                raise FailedError(f"{path}: more than {MAX_ENTITIES} entities")
        return found

    async def pages(self, path: str, **options: str | int) -> AsyncIterator[list[dict[str, Json]]]:
        """The entities of a collection, page by page. Raises FailedError: it has no end."""
        count = 0
        former: list[dict[str, Json]] = []
        for _ in range(MAX_PAGES):
            page = await self.get(path, **options, top=PAGE, skip=count)
            values = page.get("value") if isinstance(page, dict) else None
            if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
                raise AwayError(f"{path}: the answer is no SensorThings collection: correct the url")
            if values and values == former:
                raise FailedError(f"{path}: gives the same page for ever: it passes over $skip")
            yield values
            count, former = count + len(values), values
            # Its own next link may lead past the proxy through which we have to go: the offset says the same.
            if "@iot.nextLink" not in page or not values:
                return
        raise FailedError(f"{path}: more than {MAX_PAGES} pages")

    async def probe(self) -> bool:
        """Whether it says that it knows DataArrays. Raises AwayError: it is no SensorThings server, or away."""
        found = await self.get("")
        if not isinstance(found, dict) or not isinstance(found.get("value"), list):
            raise AwayError("this is no SensorThings service: the url ends in its version, such as .../v1.1")
        settings = found.get("serverSettings")
        conformance = settings.get("conformance") if isinstance(settings, dict) else None
        return not isinstance(conformance, list) or any("data-array" in str(one) for one in conformance)

    async def post(self, path: str, content: Json) -> tuple[str, Json]:
        """The Location header, or "", and the answer's JSON, or None."""
        return await self._ask("POST", path, content)

    async def change(self, path: str, content: Json) -> str | None:
        """Why the server does not change the entity for us; None: it says that it did.

        Raises AwayError: nobody knows.
        """
        return (await self._refusal("PATCH", path, content))[1]

    async def remove(self, path: str) -> bool:
        """Whether the entity is gone. Raises AwayError: nobody knows."""
        status, why = await self._refusal("DELETE", path)
        return why is None or status == 404

    async def _refusal(self, method: str, path: str, content: Json = None) -> tuple[int | None, str | None]:
        """What is beside observations must not hold them back: a right that we do not have is no reason to wait."""
        try:
            await self._ask(method, path, content)
        except AwayError as why:
            if why.status not in NOT_FOR_US:
                raise
            return why.status, str(why)
        except (FailedError, RefusedError) as why:
            return None, str(why)
        return None, None

    async def _ask(self, method: str, path: str, content: Json = None) -> tuple[str, Json]:
        assert self._http is not None, "outside of connected()"
        data = None if content is None else json.dumps(content, separators=(",", ":")).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        try:
            answer = await self._http.request(
                method, f"{self._path}/{path}", data, headers, self._settings.answer_within_s
            )
        except HttpError as why:
            said = certificate_words(why, time.time_ns() // 1_000_000) or self._shown(str(why))
            raise AwayError(said) from why
        body = answer.body
        self._judge(answer.status, answer.headers.get("Retry-After", ""), path, body)
        try:
            return answer.headers.get("Location", ""), json.loads(body) if body.strip() else None
        except (ValueError, RecursionError) as why:
            raise AwayError(f"{path}: the answer is no JSON: correct the url") from why

    def _judge(self, status: int, after: str, path: str, body: bytes) -> None:
        said = self._shown(body[:MAX_LOOKED_AT].decode(errors="replace"))
        after_s = min(MAX_RETRY_AFTER_S, float(after)) if _is_number(after) and len(after) < 10 else 0.0
        what = path.partition("?")[0]
        if status >= SERVER_FAILS:
            if status == 503 or after_s:
                raise AwayError(f"{what}: {status} {said}", after_s, status=status)
            raise FailedError(f"{status} {said}")
        if status in NOT_ABOUT_CONTENT:
            raise AwayError(f"{what}: {status} {said}", after_s, status=status)
        if status >= 400:
            raise RefusedError(status, said)
        if status >= 300:
            raise AwayError(f"{what}: {status}: it is somewhere else: correct the url")

    def _shown(self, said: str) -> str:
        """A server's words for the log and an operator's terminal: short, without controls, and without our secret."""
        for secret in self._secrets:
            said = said.replace(secret, "***")
        said = " ".join(said.split())[:MAX_SAID]
        return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in said)


def _read_files(settings: SensorThingsSettings) -> tuple[dict[str, str], tuple[str, ...], ssl.SSLContext | None]:
    headers: dict[str, str] = {"Accept": "application/json"}
    secrets: tuple[str, ...] = ()
    if settings.secret_file is not None:
        secret = settings.secret_file.read_text(encoding="utf-8").rstrip("\r\n")
        if not secret or not secret.isprintable() or (settings.username is None and not secret.isascii()):
            # Said here: whoever builds the header would show it.
            raise ValueError(f"{settings.secret_file} must hold one line, of ASCII if it is a key or token")
        secrets = (secret,)
        if settings.username is not None:
            both = b64encode(f"{settings.username}:{secret}".encode()).decode()
            headers["Authorization"], secrets = f"Basic {both}", (both, secret)
        elif settings.header is not None:
            headers[settings.header] = secret
        else:
            headers["Authorization"] = f"Bearer {secret}"
    if not settings.url.startswith("https:"):
        return headers, secrets, None
    context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return headers, secrets, context


def identifier_in(value: Json) -> str | int | None:
    """An entity's id, as it stands in JSON."""
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def in_path(identifier: str | int) -> str:
    """An id in a path: numbers as they are, texts in quotes (OData)."""
    return str(identifier) if isinstance(identifier, int) else quote(f"'{identifier}'", safe="'")


def quoted(text: str) -> str:
    """A text in a filter (OData: quotes are doubled)."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _is_number(text: str) -> bool:
    # isdigit() alone holds for a superscript two, of which int() makes nothing.
    return text.isascii() and text.isdigit()
