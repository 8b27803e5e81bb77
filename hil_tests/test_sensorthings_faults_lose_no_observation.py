"""P1 at a city's SensorThings server: whatever happens on the way, every observation is stored, once, or a dead letter.

A gateway's buffer and route deliver to a real server (django-ogc-sensorthings with SQLite) through a way that does to
each request what a case wants. In each third case the gateway ends amid it and is put together again from its disk.
Compared is the server's database. It runs in two forms: one takes a Datastream's same time twice, so whatever is sent
twice is seen twice; the other refuses it with 500.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.faulty_way import CUT_BODY, CUT_REQUEST, PASS, REFUSE, SLOW, SWALLOW, Done, FaultyWay, Request
from tests.gateway.platform import City, Key, city, dead_key, served, shorten_pauses, stored

from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_emulator.sweep import at_once

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps
    from laterne_emulator.sweep import Case

CASES = 4  # of a fault, on each form of the server
WITHIN_S = 60.0  # a bound for what would hang
STORM = 40  # requests
Rule = Callable[[Request], str | int | Done]


@pytest.fixture(scope="module", params=[False, True], ids=["takes all", "one of a time"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorThingsServer]:
    with served(tmp_path_factory.mktemp("city"), is_strict=request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


def keys_in(request: Request) -> list[Key]:
    """The observations that it would create."""
    if not request.creates:
        return []
    said = json.loads(request.body)
    if isinstance(said, list):
        told = [dict(zip(group["components"], row, strict=True)) for group in said for row in group["dataArray"]]
    else:
        told = [said]
    parameters = [one["parameters"] for one in told]
    return [(one["board"], one["sequence"], one["position"]) for one in parameters]


class Plan:
    """What happens to the requests of a case. refused: what the platform takes in no case.

    may_be: what it has refused alone. What is refused alone and is not there is a dead letter, whatever the reason.
    """

    def __init__(self, dice: random.Random, boards: list[FakeBoard]) -> None:
        self.dice = dice
        self.boards = boards
        self.refused: set[Key] = set()
        self.may_be: set[Key] = set()
        self.settings: dict[str, object] = {}
        self.happened = 0

    def rule_of(self, fault: str) -> Rule:
        rule: Rule = getattr(self, fault.replace(" ", "_").replace(",", ""))()

        def counted(request: Request) -> str | int | Done:
            what = rule(request)
            self.happened += what != PASS
            return what

        return counted

    def _at(self, is_meant: Callable[[Request], bool], choices: list[str | int | Done], share: float) -> Rule:
        """Happens to this share of what is meant, until it has happened often enough to believe in."""
        left = [self.dice.randrange(2, 9)]

        def rule(request: Request) -> str | int | Done:
            if not left[0] or not is_meant(request) or self.dice.random() > share:
                return PASS
            left[0] -= 1
            return self.dice.choice(choices)

        return rule

    def away(self) -> Rule:
        """Connections are reset, from some request on, for a while."""
        first = self.dice.randrange(12)
        last = first + self.dice.randrange(1, 8)
        return lambda request: REFUSE if first <= request.number < last else PASS

    def slow(self) -> Rule:
        return lambda request: SLOW if request.number % 3 == 0 else PASS

    def storm_of_5xx(self) -> Rule:
        """Two of three requests fail, whatever they ask, some of them after they were done."""
        choices: list[str | int | Done] = [500, 502, 503, 504, Done(500), Done(502), Done(504)]

        def rule(request: Request) -> str | int | Done:
            return self.dice.choice(choices) if request.number < STORM and self.dice.random() < 0.67 else PASS

        return rule

    def refused_for_now(self) -> Rule:
        """Wrong credentials, too many requests: nothing that a row is to blame for."""
        return self._at(lambda request: True, [401, 403, 408, 429, 503], 0.5)

    def conflict_409(self) -> Rule:
        rule = self._at(lambda request: request.creates, [409, Done(409)], 0.7)

        def noted(request: Request) -> str | int | Done:
            what = rule(request)
            if what == 409 and len(keys := keys_in(request)) == 1:
                self.may_be.update(keys)
            return what

        return noted

    def one_row_4xx(self) -> Rule:
        for board in self.boards:
            for _ in range(self.dice.choice((0, 1, 1, 2))):
                self.refused.add((board.name, self.dice.randrange(1, 5), self.dice.randrange(2)))
        self.refused.add((self.boards[0].name, 2, 1))
        status = self.dice.choice((400, 409, 413, 422))
        return lambda request: status if self.refused & set(keys_in(request)) else PASS

    def stored_then_silence(self) -> Rule:
        self.settings["answer_within_s"] = 1
        return self._at(lambda request: request.creates, [SWALLOW], 0.5)

    def cut_amid_the_answer(self) -> Rule:
        return self._at(lambda request: True, [CUT_BODY], 0.5)

    def cut_amid_the_request(self) -> Rule:
        """The platform gets half a DataArray, or half an entity."""
        return self._at(lambda request: bool(request.body), [CUT_REQUEST], 0.5)


FAULTS = (
    "away",
    "slow",
    "storm of 5xx",
    "refused for now",
    "conflict, 409",
    "one row 4xx",
    "stored, then silence",
    "cut amid the answer",
    "cut amid the request",
)


async def run(memory: Path, server: SensorThingsServer, happened: Counter[str], fault: str, case: "Case") -> None:
    dice = case.dice
    form = "s" if server.is_strict else "a"
    boards = [FakeBoard(f"{form}-{FAULTS.index(fault)}-{case.number}-{n}", n) for n in range(1, dice.choice((2, 3)))]
    plan = Plan(dice, boards)
    async with FaultyWay(server).open() as way, asyncio.timeout(WITHIN_S):
        place = memory / f"{form}-{case.name}"
        place.mkdir()
        async with city(place, way.url, *boards) as here:
            way.rule = plan.rule_of(fault)
            plan.settings |= {
                "rows": dice.choice((5, 20, 100)),
                "parallel": dice.choice((1, 4)),
                "level": dice.choice(("accepted", "stored")),
                "prefix": f"{place.name}/",  # nothing of another case is on the way of this one
            }
            for board in boards:
                await here.put(board, dice.randrange(4, 16), dice.randrange(2, 6))
            if dice.random() < 0.34:
                async with here.delivering(**plan.settings):
                    await here.delivered_counts("observations delivered", dice.randrange(1, 8))
                await here.parts.reopen()
            async with here.delivering(**plan.settings):
                for board in boards:
                    await here.put(board, dice.randrange(3), 2)
                await here.delivered_as_boards_go_on()
            happened[fault] += plan.happened
            await judge(here, server, plan, case)


async def judge(here: City, server: SensorThingsServer, plan: Plan, case: "Case") -> None:
    found = [(board.name, one.sequence, one.position) for board in here.boards for one in stored(server, board.name)]
    letters = await here.dead()
    dead = {dead_key(one) for one in letters}
    assert dead >= plan.refused
    assert dead - plan.refused <= plan.may_be, "a dead letter of what the platform has not refused alone"
    case.survived(**here.counts(found, dead, letters))
    here.check(server, *dead)
    over = ("no coordinates", "dead list")  # all others are over when it is over
    while [one for one in here.alarms() if not any(words in one for words in over)]:  # noqa: ASYNC110 - over when it is over
        await asyncio.sleep(0.05)


async def test_every_observation_is_stored_once_whatever_happens_to_requests(
    memory: Path, server: SensorThingsServer, fault_sweep: "FaultSweeps"
) -> None:
    happened: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        for fault in FAULTS:
            cases = fault_sweep(f"sensorthings: {fault}", quick=CASES)
            group.create_task(at_once(cases, 1, partial(run, memory, server, happened, fault)))
    print(dict(happened))
    assert all(happened[fault] for fault in FAULTS) or fault_sweep("sensorthings: away").is_one, (
        "a fault never happened"
    )
