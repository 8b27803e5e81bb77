"""Where a board hangs, as it is typed: a post, and perhaps where that stands."""

import math

from laterne_provisioning.errors import UsageError
from laterne_provisioning.registry import Place


def place_of(post: str | None, latitude: float | None, longitude: float | None) -> Place | None:
    """The place that was typed, degrees; None: none was. Raises UsageError."""
    if (latitude is None) != (longitude is None):
        raise UsageError("A place has a --latitude and a --longitude: give both or neither.")
    if latitude is None or longitude is None:
        return None if post is None else Place(post)
    if post is None:
        raise UsageError("A latitude and a longitude belong to a post: name it with --post.")
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        raise UsageError("--latitude and --longitude are degrees, such as 48.1374.")
    return Place(post, round(latitude * 1e7), round(longitude * 1e7))
