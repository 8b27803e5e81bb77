"""A SensorThings server for benchmarks that does next to nothing, so that the gateway is the limit; and the real one.

Both tell which reports' observations have come, and when.
"""

import json
import multiprocessing
import socket
import sqlite3
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tests.servers import free_port

from laterne_emulator.sensorthings_server import SensorThingsServer


class Arrival(NamedTuple):
    """An observation on the server. at_s: time.time()."""

    at_s: float
    board: str
    sequence: int
    channel: str
    position: int


class Answers(BaseHTTPRequestHandler):
    """Takes every entity and observation; of these it notes when which one came, and nothing else."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    ids: dict[str, int]
    arrivals: TextIO

    def do_GET(self) -> None:
        collection, _, query = self.path.partition("?")
        collection = collection.rstrip("/").rpartition("/")[2]
        if collection == "v1.1":
            self._answer(200, {"value": [], "serverSettings": {"conformance": ["data-array"]}})
            return
        reference = query.partition("%27")[2].partition("%27")[0].replace("%2F", "/")
        known = self.ids.get(f"{collection} {reference}")
        found = [] if known is None else [{"@iot.id": known, "properties": {"reference": reference}}]
        self._answer(200, {"value": found})

    def do_POST(self) -> None:
        now_s = time.time()
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("CreateObservations"):
            collection = self.path.rpartition("/")[2]
            key = f"{collection} {content['properties']['reference']}"
            self.ids[key] = len(self.ids) + 1
            self._answer(201, {}, {"Location": f"http://h/{collection}({self.ids[key]})"})
            return
        links = []
        for group in content:
            channel = group["Datastream"]["@iot.id"]
            for row in group["dataArray"]:
                said = row[4]
                links.append("http://h/Observations(1)")
                self.arrivals.write(f"{now_s} {said['board']} {said['sequence']} {channel} {said['position']}\n")
        self.arrivals.flush()
        self._answer(201, links)

    def _answer(self, code: int, content: object, more: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def _serve(port: int, file: Path) -> None:
    with file.open("w") as arrivals:
        Answers.ids, Answers.arrivals = {}, arrivals
        ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


class QuickPlatform:
    """In a process of its own, once it is started."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/v1.1"
        self._file = folder / "arrivals"
        self._read = 0
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(self._port, self._file), daemon=True
        )

    def start(self) -> None:
        self._process.start()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1.0).close()
                return
            except OSError:
                time.sleep(0.01)

    def stop(self) -> None:
        if self._process.pid is not None:
            self._process.terminate()
            self._process.join()

    def new(self) -> list[Arrival]:
        """What has come since the last call."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        found = [line.split(" ") for line in whole.decode().splitlines()]
        return [
            Arrival(float(at), board, int(number), channel, int(place)) for at, board, number, channel, place in found
        ]


class RealPlatform:
    """django-ogc-sensorthings; what came is what is in its database, and it came when that was looked at."""

    def __init__(self, folder: Path) -> None:
        self._server = SensorThingsServer(folder)
        self._server.make()
        self.url = self._server.url
        self._last = 0

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def new(self) -> list[Arrival]:
        """What has come since the last call."""
        db = sqlite3.connect(f"file:{self._server.database}?mode=ro", uri=True)
        try:
            rows: list[Any] = db.execute(
                "select rowid, datastream_id, parameters from sensorthings_v1_1_django_backend_observation "
                "where rowid > ? order by rowid",
                (self._last,),
            ).fetchall()
        finally:
            db.close()
        now_s, found = time.time(), []
        for rowid, channel, parameters in rows:
            self._last, said = rowid, json.loads(parameters)
            found.append(Arrival(now_s, said["board"], said["sequence"], str(channel), said["position"]))
        return found


Platform = QuickPlatform | RealPlatform
