"""What stands on a SensorThings server beside observations: a board's Thing, Location, Sensor, Datastreams, and so on.

Each is there once, and how that comes about although several gateways share them stands in sta_once.py. A Datastream is
used when what it hangs on was looked at after it had been hung there.

A board is a Thing; where it is, says the roster: a Thing without a Location gets no observation stored on FROST.
"""

import asyncio
import json
from dataclasses import dataclass

from laterne_gateway.config import GatewaySettings
from laterne_gateway.health import Health
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.routes.quantities import COUNT, UCUM, Quantity, quantity_of
from laterne_gateway.routes.sta_names import datastream_name, datastream_reference, location_of, thing_reference
from laterne_gateway.routes.sta_once import Identifier, Once, lowest_first, reference_in
from laterne_gateway.routes.sta_server import (
    AwayError,
    FailedError,
    Json,
    RefusedError,
    Server,
    identifier_in,
    in_path,
    quoted,
)
from laterne_protocol.roster import Post

_COLLECTION = {"Thing": "Things", "Sensor": "Sensors", "ObservedProperty": "ObservedProperties"}


@dataclass
class _Thing:
    id: Identifier
    place: str  # the reference of its Location


class Entities:
    """prefix: of every reference, so that several can share a server."""

    def __init__(
        self, subject: str, gateway: GatewaySettings, prefix: str, server: Server, roster: RosterKeeper, health: Health
    ) -> None:
        self._subject = subject
        self._gateway = gateway
        self._prefix = prefix
        self._server = server
        self._roster = roster
        self._health = health
        self._one_at_a_time = asyncio.Lock()
        self._things: dict[str, _Thing] = {}
        self._once = Once(subject, server, health)

    async def datastream(self, board: str, channel: int) -> Identifier:
        """The id of the Datastream of a board's channel; what is missing for it is made.

        Raises AwayError, FailedError, RefusedError.
        """
        async with self._one_at_a_time:
            try:
                return await self._datastream(board, channel)
            except (AwayError, FailedError, RefusedError):
                # One of those it hangs on may have been removed: whatever we know of them is looked for anew.
                self.forget(board, channel)
                raise

    async def _datastream(self, board: str, channel: int) -> Identifier:
        reference = datastream_reference(self._prefix, board, channel)
        thing = await self._thing(board)
        known = self._once.known("Datastreams", reference)
        if known is not None:
            return known
        parents = await self._parents(board, channel, thing)
        quantity = quantity_of(channel)
        content = {
            "name": datastream_name(board, channel),
            "description": f"{quantity.name} / {quantity.name_de}, as board {board} measures it",
            "observationType": quantity.observation_type,
            "unitOfMeasurement": {
                "name": quantity.unit,
                "symbol": quantity.symbol or quantity.ucum,
                "definition": UCUM + quantity.ucum,
            },
            "properties": {
                "board": board,
                "channel": channel,
                "name_de": f"{board} {quantity.name_de}",
                "unit_de": quantity.unit_de,
                "ucum": quantity.ucum,
            },
            **_links(parents),
        }
        found, is_made = await self._once.one("Datastreams", reference, content)
        if is_made:  # sta_once.py, 2
            self._forget_parents(board, channel)
            parents = await self._parents(board, channel, await self._thing(board))
        await self._hang(board, channel, found, parents)
        return found

    async def _parents(self, board: str, channel: int, thing: _Thing) -> dict[str, Identifier]:
        """What the Datastream of a board's channel hangs on."""
        references = self._references(board, channel)
        return {
            "Thing": thing.id,
            "Sensor": await self._sensor(board, references["Sensor"]),
            "ObservedProperty": await self._observed_property(quantity_of(channel), references["ObservedProperty"]),
        }

    async def _hang(self, board: str, channel: int, datastream: Identifier, parents: dict[str, Identifier]) -> None:
        """A Datastream that hangs on others is moved. Observations do not wait when the platform does not do that."""
        path = f"Datastreams({in_path(datastream)})"
        what = f"links of {datastream_reference(self._prefix, board, channel)}"
        if not (others := await self._others(path, parents)):
            self._health.clear(self._subject, what)
            return
        why = await self._server.change(path, _links(others)) or "it passes over links in a PATCH"
        if left := await self._others(path, parents):
            said = ", ".join(f"{name} {identifier}" for name, identifier in left.items())
            self._health.alarm(
                self._subject, what, f"the platform does not let us move {path} ({why}): link it with {said} by hand"
            )
            return
        self._health.count(self._subject, "datastreams moved")
        self._health.clear(self._subject, what)
        references = self._references(board, channel)
        for name in others:  # what it hung on may be free now
            await self._once.find(_COLLECTION[name], references[name])

    async def _others(self, path: str, parents: dict[str, Identifier]) -> dict[str, Identifier]:
        """Those of the parents for which the Datastream hangs on another one."""
        try:
            found = await self._server.get(path, expand=",".join(parents))
        except (FailedError, RefusedError):
            return {}  # it does not say; below, too
        said = found if isinstance(found, dict) else {}
        hangs_on = {name: said[name].get("@iot.id") for name in parents if isinstance(said.get(name), dict)}
        # Where the server does not say on what it hangs nothing is known to be wrong.
        return {name: parents[name] for name, one in hangs_on.items() if one is not None and one != parents[name]}

    def forget(self, board: str, channel: int) -> None:
        """The server does not know the Datastream any more: it, and all that it needs, is looked for again."""
        self._once.forget("Datastreams", datastream_reference(self._prefix, board, channel))
        self._once.forget("Locations", self._place(board)[0])
        self._forget_parents(board, channel)

    def _forget_parents(self, board: str, channel: int) -> None:
        self._things.pop(board, None)
        for name, reference in self._references(board, channel).items():
            self._once.forget(_COLLECTION[name], reference)

    def _references(self, board: str, channel: int) -> dict[str, str]:
        """Of what the Datastream of a board's channel hangs on."""
        return {
            "Thing": thing_reference(self._prefix, board),
            "Sensor": f"{self._prefix}{board}/sensors",
            "ObservedProperty": f"{self._prefix}observed/{quantity_of(channel).reference}",
        }

    async def _sensor(self, board: str, reference: str) -> Identifier:
        content = {
            "name": f"sensors of board {board}",
            "description": f"the sensors that board {board} reads; which parts they are its owner's registry says",
            "encodingType": "text/html",
            # A text: some servers refuse an object (facts/urban_platform.md, 2).
            "metadata": f"urn:laterne:board:{self._gateway.tenant}:{board}",
            "properties": {"board": board},
        }
        return (await self._once.one("Sensors", reference, content))[0]

    async def _observed_property(self, quantity: Quantity, reference: str) -> Identifier:
        properties = {"name_de": quantity.name_de} | ({"also": quantity.also} if quantity.also else {})
        content = {
            "name": quantity.name,
            "description": f"{quantity.name} / {quantity.name_de}"
            + ("" if quantity.observation_type != COUNT else ", counted"),
            "definition": quantity.definition,
            "properties": properties,
        }
        return (await self._once.one("ObservedProperties", reference, content))[0]

    async def _thing(self, board: str) -> _Thing:
        place, post = self._place(board)
        known = self._things.get(board)
        if known is not None and known.place == place:
            return known
        reference = thing_reference(self._prefix, board)
        name = board if post is None else f"{post.name} {board}"
        content: dict[str, Json] = {
            "name": name,
            "description": f"board {board} on lamp post {post.name}" if post is not None else f"board {board}",
            "properties": {
                "board": board,
                "post": None if post is None else post.name,
                "tenant": self._gateway.tenant,
                "reference": reference,
            },
        }
        found = await self._once.find("Things", reference)
        if found is None or self._roster.entry(board) is not None:  # who has left the roster stays where he was
            # Looked for although the Thing may hang there: so another one, of a process that was killed, goes.
            location = await self._location(board, place, post)
            if found is None:
                found, _ = await self._once.one("Things", reference, content | {"Locations": [{"@iot.id": location}]})
            if place not in await self._places_of(found):
                await self._move(board, found, content, location)
        made = self._things[board] = _Thing(found, place)
        return made

    async def _move(self, board: str, thing: Identifier, content: dict[str, Json], location: Identifier) -> None:
        """The board hangs elsewhere now. The former Location stays: it is history. Observations do not wait for it."""
        path = f"Things({in_path(thing)})"
        why = await self._server.change(path, content | {"Locations": [{"@iot.id": location}]})
        found = await self._server.all(f"{path}/Locations")
        if any(identifier_in(one.get("@iot.id")) == location for one in found):
            self._health.count(self._subject, "boards moved")
            self._health.clear(self._subject, f"place of {board}")
            return
        why = why or "it passes over links in a PATCH"
        self._health.alarm(
            self._subject,
            f"place of {board}",
            f"the platform does not let us move board {board} ({why}): give its Thing the Location {location} by hand",
        )

    def place(self, board: str) -> str:
        """The same for boards that hang at one place."""
        return json.dumps(location_of(board, self._place(board)[1]))

    async def part_features(self, board: str) -> bool:
        """Whether there were two features of the board's place, which is over then.

        A server makes a FeatureOfInterest of a place with the first observation there. One makes two when boards of two
        gateways send theirs together, and fails with every observation after that, because it looks for the feature by
        its geometry. All but the lowest are marked, in a member that is no part of a geometry (RFC 7946, 6.1), so they
        are found no more and keep their observations.
        """
        _, post = self._place(board)
        wanted = location_of(board, post)
        try:
            values = await self._server.all(
                "FeaturesOfInterest", filter=f"name eq {quoted(_place_name(board, post))}", select="@iot.id,feature"
            )
        except (FailedError, RefusedError):
            return False
        except AwayError as why:
            if why.status is None:
                raise
            return False
        found = {identifier_in(one.get("@iot.id")) for one in values if one.get("feature") == wanted}
        others = lowest_first(one for one in found if one is not None)[1:]
        for one in others:
            path = f"FeaturesOfInterest({in_path(one)})"
            why_not = await self._server.change(path, {"feature": wanted | {"made": "a second time"}})
            if why_not is not None:
                self._health.alarm(
                    self._subject,
                    f"features of {board}",
                    f"the platform has {len(found)} FeaturesOfInterest where {board} hangs and lets us change none "
                    f"({why_not}): remove all but one by hand",
                )
                return False
        self._health.clear(self._subject, f"features of {board}")
        self._health.count(self._subject, "features parted", len(others))
        return bool(others)

    async def _places_of(self, thing: Identifier) -> list[str]:
        return [reference_in(one) for one in await self._server.all(f"Things({in_path(thing)})/Locations")]

    def _place(self, board: str) -> tuple[str, Post | None]:
        entry = self._roster.entry(board)
        post = None if entry is None else entry.post
        at = "" if post is None or post.latitude is None else f"@{post.latitude},{post.longitude}"
        return f"{self._prefix}{board}/place/{'' if post is None else post.name}{at}", post

    async def _location(self, board: str, reference: str, post: Post | None) -> Identifier:
        location = location_of(board, post)
        if location["type"] == "Point":
            self._health.clear(self._subject, f"place of {board}")
        else:
            self._health.alarm(
                self._subject,
                f"place of {board}",
                f"the roster gives no coordinates for board {board}: the platform shows it nowhere; "
                "enrol it with its post's place",
            )
        content: dict[str, Json] = {
            "name": _place_name(board, post),
            "description": f"where board {board} hangs",
            "encodingType": "application/geo+json",
            "location": location,
        }
        return (await self._once.one("Locations", reference, content))[0]


def _place_name(board: str, post: Post | None) -> str:
    return board if post is None else post.name


def _links(parents: dict[str, Identifier]) -> dict[str, Json]:
    return {name: {"@iot.id": identifier} for name, identifier in parents.items()}
