"""How a board, its place, its channels and its observations are called in SensorThings, whichever way they go."""

from typing import Any

from laterne_gateway.clock import rfc3339
from laterne_gateway.routes.observations import Observation
from laterne_gateway.routes.quantities import quantity_of
from laterne_protocol.roster import Post

DEGREE = 10_000_000  # of the roster's latitude and longitude
COMPONENTS = ["phenomenonTime", "resultTime", "result", "resultQuality", "parameters"]


def thing_reference(prefix: str, board: str) -> str:
    return f"{prefix}{board}"


def datastream_reference(prefix: str, board: str, channel: int) -> str:
    return f"{prefix}{board}/{quantity_of(channel).reference}"


def datastream_name(board: str, channel: int) -> str:
    return f"{board} {quantity_of(channel).name}"


def location_of(board: str, post: Post | None) -> dict[str, object]:
    """GeoJSON of where a board hangs; where the roster does not know, a feature without geometry (RFC 7946, 3.2)."""
    if post is None or post.latitude is None or post.longitude is None:
        return {"type": "Feature", "geometry": None, "properties": {"board": board}}
    return {"type": "Point", "coordinates": [post.longitude / DEGREE, post.latitude / DEGREE]}


def row_of(one: Observation) -> list[Any]:
    """A row of a DataArray, in the order of COMPONENTS."""
    at = rfc3339(one.at_ms)
    parameters: dict[str, object] = {
        "board": one.board,
        "sequence": one.sequence,
        "digest": one.digest,
        "position": one.position,
        "clock": one.clock,
        "within_ms": one.within_ms,
    }
    if one.lost is not None:
        parameters |= {"from": one.lost[0], "to": one.lost[1], "reason": one.lost[2]}
    # An object, always: one server takes a number, and after that answers every reading with 500.
    quality = {"nameOfMeasure": "QARTOD", "DQ_Result": {"code": str(one.flag)}}
    return [at, at, one.value, quality, parameters]


def identity_in(parameters: object) -> tuple[int, str, int] | None:
    """Which of ours an observation with these parameters is (Observation.identity); None: none."""
    if not isinstance(parameters, dict):
        return None
    sequence, digest, position = (parameters.get(name) for name in ("sequence", "digest", "position"))
    if isinstance(sequence, int) and isinstance(digest, str) and isinstance(position, int):
        return sequence, digest, position
    return None
