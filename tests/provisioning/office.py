"""The operator's office, to which journals come home: merging one, and what is there afterwards."""

from tests.provisioning.technician import DAY, NOW, Technician

from laterne_provisioning import (
    audit_check,
    merging,
)
from laterne_provisioning.authority import Authority
from laterne_provisioning.merging import Merged
from laterne_provisioning.registry import Board

LATER = NOW + DAY


def merge(office: Authority, journal: bytes, accepted: bool = False, now: int = LATER) -> Merged:
    with office.registry() as registry:
        return merging.merge(office, registry, journal, accepted, now)


def came_to(done: Merged) -> list[tuple[str, str]]:
    return [(one.board, one.result) for one in done.results]


def rows(office: Authority) -> list[Board]:
    with office.registry() as registry:
        return registry.boards()


def require_true_log(office: Authority) -> None:
    """The audit log is whole and tells the same as the registry."""
    found = audit_check.check(office.log.read(), office.trusted)
    with office.registry() as registry:
        audit_check.compare(found, registry)
    assert found.wrong == []
    assert found.notes == []


def acts(office: Authority, act: str) -> list[str]:
    return [one.subject for one in audit_check.check(office.log.read(), office.trusted).records if one.act == act]


def late(technician: Technician, moment: int) -> None:
    technician.clock = moment
    technician.enrol("LE-0109")
