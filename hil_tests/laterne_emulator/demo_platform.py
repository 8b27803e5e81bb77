"""The demo's platform: a real SensorThings server, the gateway's route to it, and what is read back from it."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path

from laterne_emulator.processes import ProcessFailed
from laterne_emulator.sensorthings_server import NoServer, SensorThingsServer

SENSORTHINGS = "sensorthings"
NAMES = (SENSORTHINGS,)
ANSWERS_WITHIN_S = 30.0
NOTHING_NEW_S = 20.0  # nothing more has arrived for so long: what is missing will not


class Platform:
    """directory: new. start() before the gateway, stop() after it, and always."""

    def __init__(self, directory: Path) -> None:
        try:
            self._server = SensorThingsServer(directory)
        except NoServer as why:
            raise ProcessFailed(str(why)) from why
        self.url = self._server.url
        self.stored: int | None = None

    @property
    def settings(self) -> str:
        """The table for gateway.toml."""
        return f'\n[[route]]\nname = "city"\nkind = "{SENSORTHINGS}"\nurl = "{self.url}"\n'

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self._server.make)
            # From the main thread, for a second: whoever starts it, it ends with that thread.
            self._server.start(ends_with_thread=True)
        except NoServer as why:
            raise ProcessFailed(str(why)) from why

    def stop(self) -> None:
        self._server.stop()

    async def read_back(self, wanted: int) -> None:
        """Counts what is there into `stored`, until it is as much as was taken or nothing more comes."""
        changed_at = time.monotonic()
        while True:
            found = await asyncio.to_thread(self._count)
            if found != self.stored:
                self.stored, changed_at = found, time.monotonic()
            if found >= wanted or time.monotonic() - changed_at >= NOTHING_NEW_S:
                return
            await asyncio.sleep(0.2)

    def _count(self) -> int:
        """Observations of readings, not those that tell of lost reports."""
        streams = self._read("Datastreams?$select=@iot.id,properties&$top=100")["value"]
        assert isinstance(streams, list)
        total = 0
        for stream in streams:
            if not str(stream["properties"]["reference"]).endswith("/reports-lost"):
                count = self._read(f"Datastreams('{stream['@iot.id']}')/Observations?$count=true&$top=1")["@iot.count"]
                assert isinstance(count, int)
                total += count
        return total

    def _read(self, path: str) -> dict[str, object]:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=ANSWERS_WITHIN_S) as answer:
            found: dict[str, object] = json.load(answer)
            return found
