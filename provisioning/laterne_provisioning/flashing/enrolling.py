"""How a board that is flashed gets its name: by the authority beside it, or under a technician's grant.

What can be known before a byte is written is asked for before: keys are opened, ids and chips compared.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from laterne_provisioning import enrol, field, grant_commands, keys
from laterne_provisioning.authority import Authority
from laterne_provisioning.grants import GrantFile
from laterne_provisioning.line import Line
from laterne_provisioning.registry import Board, Place

Say = Callable[[str], None]


@dataclass(frozen=True)
class Enroller:
    """require: given a chip's own number, raises OperatorError where that board cannot get the id. enrol: gives it."""

    require: Callable[[bytes], None]
    enrol: Callable[[Line, Say], enrol.Enrolment]


@contextmanager
def by_authority(
    opened: Authority, board_id: str, place: Place | None, pending: bool, secrets: keys.Secrets
) -> Iterator[Enroller]:
    """Raises UsageError, OperatorError: the key does not open, or the id is used up."""
    key = opened.signing_key("enrolment", secrets)
    key.open()
    with opened.registry() as registry:
        former = registry.board(board_id)
        if former is not None:
            enrol.require_not_ended(former)
        yield Enroller(
            lambda hardware: _require_same_chip(former, hardware),
            lambda line, say: enrol.enrol(line, opened, registry, key, board_id, place, int(time.time()), say, pending),
        )


@contextmanager
def by_grant(
    granted: GrantFile, board_id: str, place: Place | None, technician_key: Path, journal: Path, secrets: keys.Secrets
) -> Iterator[Enroller]:
    """Raises UsageError, OperatorError: key or journal do not open, or the grant does not allow it."""
    signer = grant_commands.technicians_key(technician_key, granted.given, secrets)
    with field.begun(granted, signer, journal) as errand:
        former = errand.boards.get(board_id)
        if former is None:
            errand.require(board_id, place, int(time.time()))
        yield Enroller(
            lambda hardware: _require_same_chip(former, hardware),
            lambda line, say: field.enrol_here(line, errand, board_id, place, int(time.time()), say),
        )


def _require_same_chip(former: Board | None, hardware: bytes) -> None:
    if former is not None and former.hardware != hardware:
        raise enrol.belongs_to_another(former)
