"""What a SensorThings server's 201 says of each row, and what it is worth at each delivery level.

The server takes whatever comes, also twice: what is sent again for nothing is seen.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.gateway.faulty_way import PASS, AllBut, FaultyWay, Request, Says, What
from tests.gateway.platform import Key, boards, city, served

from laterne_emulator.sensorthings_server import SensorThingsServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorThingsServer]:
    with served(tmp_path_factory.mktemp("city"), is_strict=False) as made:
        yield made


pytestmark = pytest.mark.usefixtures("short_pauses")


def key_of(row: dict[str, Any]) -> Key:
    said = row["parameters"]
    return said["board"], said["sequence"], said["position"]


def keys_in(request: Request) -> list[Key]:
    """The observations of a DataArray; none: it is none."""
    if not request.path.endswith("CreateObservations"):
        return []
    groups = json.loads(request.body)
    return [key_of(dict(zip(group["components"], row, strict=True))) for group in groups for row in group["dataArray"]]


@pytest.mark.parametrize("together", [True, False], ids=["rows together", "a row alone"])
@pytest.mark.parametrize("level", ["stored", "accepted"])
async def test_links_to_what_was_never_stored_are_believed_only_at_level_accepted(
    tmp_path: Path, server: SensorThingsServer, level: str, together: bool
) -> None:
    """A proxy that answers for its server, or a server that loses what it has not synced."""
    (one,) = boards()
    lied: list[Key] = []
    sent = Counter[Key]()

    async with FaultyWay(server).open() as way, city(tmp_path, way.url, one) as here:

        def rule(request: Request) -> What:
            keys = keys_in(request)
            if keys and not together and len(keys) > 1:
                return 409  # so they come one by one
            sent.update(keys)
            if not keys or lied:
                return PASS
            lied.extend(keys)
            links = [f"{way.url}/Observations('{uuid4()}')" for _ in keys]
            return Says(201, json.dumps(links).encode(), (("Content-Type", "application/json"),))

        way.rule = rule
        await here.put(one, 1)
        async with here.delivering(level=level):
            await here.delivered()
        assert len(lied) == (4 if together else 1)
        again = 2 if level == "stored" else 1
        assert sent == {key: again if key in lied else 1 for key in here.values}
        here.check(server, *([] if level == "stored" else lied))
        assert here.counted("observations delivered") == len(here.values)
        assert await here.dead() == []


@pytest.mark.parametrize("level", ["stored", "accepted"])
@pytest.mark.parametrize("position", [0, 2, 5])
async def test_an_error_among_links_is_that_row_s_alone(
    tmp_path: Path, server: SensorThingsServer, level: str, position: int
) -> None:
    """FROST stores the others of the group, and says so by their links: none of them is sent again or looked for."""
    street = boards(2)
    bad: Key = (street[0].name, 2, position)
    with_others: list[int] = []
    sent = Counter[Key]()

    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:

        def rule(request: Request) -> What:
            keys = keys_in(request)
            sent.update(keys)
            if bad in keys:
                with_others.append(len(keys) - 1)
                return AllBut(lambda row: key_of(row) == bad)
            if request.path.endswith("/Observations") and request.method == "POST":
                return 400 if key_of(json.loads(request.body)) == bad else PASS
            return PASS

        way.rule = rule
        for board in street:
            await here.put(board, 3, 6)
        async with here.delivering(level=level):
            await here.delivered_as_boards_go_on()
        here.check(server, bad)
        (letter,) = await here.dead()
        assert (letter.board, letter.sequence, letter.place) == (*bad[:2], f"air-temperature/{position}")
        assert "400" in letter.reason
        assert with_others[0] >= 5, "it went with its report"
        assert sent.keys() == here.values.keys()
        assert {key for key, times in sent.items() if times > 1} <= {bad}
        assert here.counted("observations that were there already") == 0
