"""What stands on a SensorThings server beside observations, made once: Things, Locations, Sensors and so on.

Each of ours bears properties.reference. It is looked for by that and never by its name: names are not unique in
SensorThings, and on a shared server another's entity may have ours. Each is looked for before it is made, by one
worker, so after a timeout the next attempt finds what the last one made. Where two bear our reference the one with the
lowest id is used, and an alarm says so.

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
from laterne_gateway.routes.sta_server import (
    AwayError,
    FailedError,
    Json,
    RefusedError,
    Server,
    at_link,
    identifier_in,
    in_path,
    quoted,
)
from laterne_protocol.roster import Post

Identifier = str | int


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
        self._ids: dict[tuple[str, str], Identifier] = {}  # by collection and reference

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
        thing = await self._thing(board)
        quantity = quantity_of(channel)
        reference = datastream_reference(self._prefix, board, channel)
        known = self._ids.get(("Datastreams", reference))
        if known is not None:
            return known
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
            "Thing": {"@iot.id": thing.id},
            "Sensor": {"@iot.id": await self._sensor(board)},
            "ObservedProperty": {"@iot.id": await self._observed_property(quantity)},
        }
        return await self._one("Datastreams", reference, content)

    def forget(self, board: str, channel: int) -> None:
        """The server does not know the Datastream any more: it, and all that it needs, is looked for again."""
        self._things.pop(board, None)
        self._ids.pop(("Things", thing_reference(self._prefix, board)), None)
        self._ids.pop(("Datastreams", datastream_reference(self._prefix, board, channel)), None)
        self._ids.pop(("Sensors", f"{self._prefix}{board}/sensors"), None)
        self._ids.pop(("Locations", self._place(board)[0]), None)
        self._ids.pop(("ObservedProperties", self._property_reference(quantity_of(channel))), None)

    def _property_reference(self, quantity: Quantity) -> str:
        return f"{self._prefix}observed/{quantity.reference}"

    async def _sensor(self, board: str) -> Identifier:
        content = {
            "name": f"sensors of board {board}",
            "description": f"the sensors that board {board} reads; which parts they are its owner's registry says",
            "encodingType": "text/html",
            # A text: some servers refuse an object (facts/urban_platform.md, 2).
            "metadata": f"urn:laterne:board:{self._gateway.tenant}:{board}",
            "properties": {"board": board},
        }
        return await self._one("Sensors", f"{self._prefix}{board}/sensors", content)

    async def _observed_property(self, quantity: Quantity) -> Identifier:
        properties = {"name_de": quantity.name_de} | ({"also": quantity.also} if quantity.also else {})
        content = {
            "name": quantity.name,
            "description": f"{quantity.name} / {quantity.name_de}"
            + ("" if quantity.observation_type != COUNT else ", counted"),
            "definition": quantity.definition,
            "properties": properties,
        }
        return await self._one("ObservedProperties", self._property_reference(quantity), content)

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
        found = await self._find("Things", reference)
        if found is None:
            located = {"Locations": [{"@iot.id": await self._location(board, place, post)}]}
            found = await self._one("Things", reference, content | located)
        elif place not in await self._places_of(found):
            await self._move(board, found, content, await self._location(board, place, post))
        made = self._things[board] = _Thing(found, place)
        return made

    async def _move(self, board: str, thing: Identifier, content: dict[str, Json], location: Identifier) -> None:
        """The board hangs elsewhere now. The former Location stays: it is history. Observations do not wait for it."""
        why = "it passes over links in a PATCH"
        try:
            await self._server.patch(f"Things({in_path(thing)})", content | {"Locations": [{"@iot.id": location}]})
            found = await self._server.all(f"Things({in_path(thing)})/Locations")
            if any(identifier_in(one.get("@iot.id")) == location for one in found):
                self._health.count(self._subject, "boards moved")
                self._health.clear(self._subject, f"place of {board}")
                return
        except (FailedError, RefusedError) as refusal:
            why = str(refusal)
        self._health.alarm(
            self._subject,
            f"place of {board}",
            f"the platform does not let us move board {board} ({why}): give its Thing the Location {location} by hand",
        )

    def place(self, board: str) -> str:
        """The same for boards that hang at one place."""
        return json.dumps(location_of(board, self._place(board)[1]))

    async def _places_of(self, thing: Identifier) -> list[str]:
        return [_reference_in(one) for one in await self._server.all(f"Things({in_path(thing)})/Locations")]

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
            "name": board if post is None else post.name,
            "description": f"where board {board} hangs",
            "encodingType": "application/geo+json",
            "location": location,
        }
        return await self._one("Locations", reference, content)

    async def _one(self, collection: str, reference: str, content: dict[str, Json]) -> Identifier:
        """The id of our entity with this reference; it is made when there is none."""
        key = (collection, reference)
        if key in self._ids:
            return self._ids[key]
        found = await self._find(collection, reference)
        if found is None:
            properties = {**content.get("properties", {}), "reference": reference}
            link, _ = await self._server.post(collection, {**content, "properties": properties})
            found = at_link(link)
            if found is None:  # a server that does not say where: it knows by now
                found = await self._find(collection, reference)
            if found is None:
                raise AwayError(f"{collection}: what was made with the reference {reference} is not found")
            self._health.count(self._subject, "entities made")
        self._ids[key] = found
        return found

    async def _find(self, collection: str, reference: str) -> Identifier | None:
        values = await self._server.all(
            collection, filter=f"properties/reference eq {quoted(reference)}", select="@iot.id,properties"
        )
        # A server that passes over the filter would give us another's.
        found = [identifier_in(one.get("@iot.id")) for one in values if _reference_in(one) == reference]
        mine = [one for one in found if one is not None]
        if len(mine) > 1:
            self._health.alarm(
                self._subject,
                f"{collection} {reference}",
                f"the platform has {len(mine)} {collection} with the reference {reference}: remove all but the first",
            )
        return min(mine, key=_lowest_first) if mine else None


def _lowest_first(one: Identifier) -> tuple[int, str]:
    return (one, "") if isinstance(one, int) else (0, one)


def _reference_in(entity: dict[str, Json]) -> str:
    properties = entity.get("properties")
    reference = properties.get("reference") if isinstance(properties, dict) else None
    return reference if isinstance(reference, str) else ""
