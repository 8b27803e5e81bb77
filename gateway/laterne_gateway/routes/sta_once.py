"""One entity for each reference on a SensorThings server, the same for everybody, whoever makes it and whenever.

Each of ours bears properties.reference. It is looked for by that and never by its name: names are not unique in
SensorThings, and on a shared server another's entity may have ours. The server itself holds no reference unique, and
knows no condition for a POST: two gateways that look together find nothing, and both make it. So:

1. Look. When there is none make it, and look again: whatever the answer was, and whatever id it named. Of those that
   are there everybody takes the one with the lowest id.
2. Who has hung something on it (HANGS_ON_IT) looks again after that. When it is not the lowest any more, what was hung
   there is moved, before it is used (sta_entities.py).
3. Who sees one that is not the lowest, and then that nothing hangs on it, removes it.

Why that ends well, whoever stands still or is killed between two requests, and whichever answers are lost:

- Every step begins with looking, and none remembers the one before: after a kill, or when an answer was lost although
  the server had stored, the next look shows how far it is.
- Ids ascend: the first that anybody could see is the lowest for ever. Who found none has made his own and looked again,
  so he has seen it, too. All take it, nothing is ever hung on another, and the others are removed.
- Ids ascend, but for two that are stored in the same moment; or, on some server, not at all. Then something may hang on
  X before a lower Y is seen. It is moved by who hung it there: by 2, or when it is next looked for after a start or a
  failure. Until then X stays, and an alarm of those that see both.
- A server removes with X what hangs on it, and the observations of that (18-088, 10.4). Who removes X has seen Y first,
  and after that nothing on X. What is hung on X later is used only after another look (2), which shows Y or one lower
  still, for nobody removes the lowest. So it has no observation yet when it goes with X; it is missed and made again.

What is left: a Datastream with observations is moved onto an X that is being removed in the same moment. For that three
with one reference must stand there, with descending ids, and the third be new.
"""

from collections.abc import Iterable

from laterne_gateway.health import Health
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

HANGS_ON_IT = {
    "Things": "Datastreams",
    "Sensors": "Datastreams",
    "ObservedProperties": "Datastreams",
    "Locations": "Things",
    "Datastreams": "Observations",
}

Identifier = str | int


class Once:
    """subject: in the health. One caller at a time."""

    def __init__(self, subject: str, server: Server, health: Health) -> None:
        self._subject = subject
        self._server = server
        self._health = health
        self._known: dict[tuple[str, str], Identifier] = {}  # by collection and reference

    def forget(self, collection: str, reference: str) -> None:
        """It is looked for again before it is used."""
        self._known.pop((collection, reference), None)

    def known(self, collection: str, reference: str) -> Identifier | None:
        """What a former call has found."""
        return self._known.get((collection, reference))

    async def one(self, collection: str, reference: str, content: dict[str, Json]) -> tuple[Identifier, bool]:
        """The id of our entity with this reference, and whether one was made for that.

        Raises AwayError, FailedError, RefusedError.
        """
        known = self._known.get((collection, reference))
        if known is not None:
            return known, False
        found = await self.find(collection, reference)
        is_made = found is None
        if found is None:
            properties = {**content.get("properties", {}), "reference": reference}
            await self._server.post(collection, {**content, "properties": properties})
            self._health.count(self._subject, "entities made")
            found = await self.find(collection, reference)
            if found is None:
                raise FailedError(f"{collection}: what was made with the reference {reference} is not found")
        self._known[collection, reference] = found
        return found, is_made

    async def find(self, collection: str, reference: str) -> Identifier | None:
        """The lowest id of those that are there; others on which nothing hangs are removed."""
        values = await self._server.all(
            collection, filter=f"properties/reference eq {quoted(reference)}", select="@iot.id,properties"
        )
        # A server that passes over the filter would give us another's.
        found = [identifier_in(one.get("@iot.id")) for one in values if reference_in(one) == reference]
        mine = lowest_first({one for one in found if one is not None})  # pages may overlap
        used = [one for one in mine[1:] if not await self._remove_unused(collection, one)]
        what = f"{collection} {reference}"
        if used:
            self._health.alarm(
                self._subject,
                what,
                f"the platform has {1 + len(used)} {collection} with the reference {reference}: if that stays when all "
                f"gateways that use them have started again, remove all but {mine[0]}",
            )
        else:
            self._health.clear(self._subject, what)
        return mine[0] if mine else None

    async def _remove_unused(self, collection: str, identifier: Identifier) -> bool:
        """Whether it is gone."""
        path = f"{collection}({in_path(identifier)})"
        try:
            hangs = await self._server.get(f"{path}/{HANGS_ON_IT[collection]}", top=1, select="@iot.id")
        except AwayError as why:
            if why.is_gone:
                return True
            raise
        except (FailedError, RefusedError):
            return False  # nobody knows what hangs there
        if not isinstance(hangs, dict) or hangs.get("value") != [] or not await self._server.remove(path):
            return False
        self._health.count(self._subject, "entities removed that were made twice")
        return True


def lowest_first(identifiers: Iterable[Identifier]) -> list[Identifier]:
    """Numbers by their value, texts by their signs."""
    return sorted(identifiers, key=lambda one: (one, "") if isinstance(one, int) else (0, one))


def reference_in(entity: dict[str, Json]) -> str:
    """The reference that an entity bears, or ""."""
    properties = entity.get("properties")
    reference = properties.get("reference") if isinstance(properties, dict) else None
    return reference if isinstance(reference, str) else ""
