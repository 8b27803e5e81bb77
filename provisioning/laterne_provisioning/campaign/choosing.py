"""From what was typed to a plan: which boards, which canaries, which waves, which release."""

import fnmatch
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from laterne_protocol import release_file
from laterne_protocol.errors import WireError
from laterne_provisioning import primitives, roster
from laterne_provisioning.authority import Authority
from laterne_provisioning.campaign import store
from laterne_provisioning.campaign.plan import Plan, Release, Target
from laterne_provisioning.campaign.states import ENDED, OVER
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.registry import ENROLLED, Board, Registry

MOST_RELEASE_BYTES = 1 << 20
DEFAULT_TRIAL_S = 600  # of a release that does not say (protocol/README.md, 11.3)
KINDS = ("id", "post", "gateway", "model")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def file_of(path: Path) -> bytes:
    """What is in a release file; one byte more than may be, if it is longer. Raises UsageError."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_RELEASE_BYTES + 1)
    except OSError as why:
        raise UsageError(f"The release cannot be read: {why.strerror}: {path}") from why


def release_of(data: bytes, authority: Authority) -> Release:
    """The release in a file, signed by enough release keys of this authority. Raises OperatorError."""
    try:
        found = release_file.release_of(data)
        found.require_signed(authority.trusted, primitives.is_signature)
    except WireError as why:
        raise OperatorError(
            f"No board would take this release: {why}. Build it again, or sign it: `laterne release sign`."
        ) from why
    trial_s = found.head.trial_s or DEFAULT_TRIAL_S
    return Release(found.head.version, found.manifest.sequence, found.digest.hex(), trial_s)


def boards_of(registry: Registry, filters: Sequence[str]) -> list[tuple[Board, str]]:
    """The enrolled boards that the filters name and a gateway serves, each with its gateway, by id. Raises UsageError.

    A filter is KIND:GLOB or the glob of an id. A board must fit one of each kind that is given; none: all boards.
    """
    wanted: dict[str, list[str]] = {}
    for text in filters:
        kind, colon, pattern = text.partition(":")
        if colon and kind not in KINDS:
            raise UsageError(f"{text!r}: boards are chosen by {', '.join(KINDS)}, such as post:Harbour-*.")
        wanted.setdefault(kind if colon else "id", []).append(pattern if colon else text)
    gateways: dict[str, str] = {}
    for gateway, listed in roster.newest(registry):
        for board in listed:
            if gateways.setdefault(board, gateway) != gateway:
                raise OperatorError(f"{board} is on the rosters of {gateways[board]} and {gateway}: export one anew.")
    found = []
    for one in registry.boards():
        if one.state != ENROLLED or one.id not in gateways:
            continue
        place = one.place
        said = {"id": one.id, "post": "" if place is None else place.post, "gateway": gateways[one.id]}
        said["model"] = one.model
        if all(any(fnmatch.fnmatchcase(said[kind], glob) for glob in globs) for kind, globs in wanted.items()):
            found.append((one, gateways[one.id]))
    if not found:
        raise UsageError("No board that is enrolled and on a gateway's newest roster fits --boards.")
    return found


def targets(
    chosen: Sequence[tuple[Board, str]], tenants: Mapping[str, str], interpreters: Mapping[str, str]
) -> tuple[Target, ...]:
    """tenants: of each gateway. interpreters: of each board of which it is known."""
    return tuple(
        Target(
            board.id,
            tenants[gateway],
            gateway,
            None if board.place is None else board.place.post,
            (
                f"gateway {gateway}",
                f"model {board.model}",
                *([f"interpreter {interpreters[board.id]}"] if board.id in interpreters else []),
            ),
        )
        for board, gateway in chosen
    )


def require_free(authority: Authority, plan: Plan) -> None:
    """Raises OperatorError: another campaign, not over, has one of these boards; this release has failed on one."""
    boards = {one.board for one in plan.targets}
    for other in store.stores(authority.directory):
        engine = other.engine()
        both = boards & engine.targets.keys()
        busy = sorted(board for board in both if engine.rows[board].state not in ENDED)
        if engine.course.state not in OVER and busy:
            raise OperatorError(
                f"{busy[0]} is in the campaign {other.id}, which is {engine.course.state}: let it end, or abort it."
            )


def waves_of(text: str) -> tuple[float, ...]:
    """The cumulative shares in "5,25,50,100", in percent. Raises UsageError."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or list(found) != sorted(set(found)) or found[0] <= 0 or found[-1] != 100:
        raise UsageError(f"--waves {text}: rising percents that end in 100, such as 5,25,50,100.")
    return found


def failures_of(text: str) -> tuple[int, float]:
    """The number and the share in "1,0.5". Raises UsageError."""
    try:
        number, percent = text.split(",")
        found = int(number), float(percent)
    except ValueError:
        found = -1, -1.0
    if found[0] < 0 or not 0 <= found[1] <= 100:
        raise UsageError(f"--max-failures {text}: a number and a percentage, such as 1,0.5.")
    return found


def span_of(text: str, option: str) -> int:
    """Seconds of "90s", "30m", "24h" or "2d". Raises UsageError."""
    try:
        found = float(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError):
        found = math.nan
    if not math.isfinite(found) or found < 0:
        raise UsageError(f"{option} {text}: a time such as 90s, 30m, 24h or 2d.")
    return round(found)
