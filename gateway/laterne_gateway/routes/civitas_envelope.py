"""The envelope of CIVITAS/CORE v2 (facts/urban_platform.md, 1): one Thing, and observations of its Datastreams.

    head_of(...) + b",".join(part_of(...) for each observation) + TAIL

The keys of `parameters` beside reference and name are ours; the platform's flow keeps or passes over them.
"""

import json

from laterne_gateway.routes.observations import Observation
from laterne_gateway.routes.sta_names import datastream_name, datastream_reference, location_of, row_of, thing_reference
from laterne_protocol.roster import Entry

TAIL = b"]}"


def head_of(prefix: str, board: str, entry: Entry | None) -> bytes:
    """All before the first observation: the board as a Thing, and where it hangs. prefix: of references.

    entry: of the roster; None: the board has left it, and stays where it was.
    """
    post = None if entry is None else entry.post
    thing: dict[str, object] = {
        "name": board if post is None else f"{post.name} {board}",
        "description": f"board {board}" if post is None else f"board {board} on lamp post {post.name}",
        "properties": {"reference": thing_reference(prefix, board), "board": board},
    }
    if entry is not None:
        thing["Locations"] = [
            {
                "name": board if post is None else post.name,
                "description": f"where board {board} hangs",
                "encodingType": "application/geo+json",
                "location": location_of(board, post),
            }
        ]
    return b'{"things":[' + _json(thing) + b'],"observations":['


def part_of(prefix: str, one: Observation) -> bytes:
    """An observation, without the comma."""
    at, result_at, value, quality, parameters = row_of(one)
    told = {
        "reference": datastream_reference(prefix, one.board, one.channel),
        "name": datastream_name(one.board, one.channel),
        **parameters,
    }
    return _json(
        {
            "phenomenonTime": at,
            "resultTime": result_at,
            "result": value,
            "resultQuality": quality,
            "parameters": told,
        }
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
