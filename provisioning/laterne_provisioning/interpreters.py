"""With which MicroPython each board was flashed, as the audit log tells: boards of two versions may behave differently.

A board says it to whoever flashes it, over USB, and to nobody afterwards. So it is known of boards that were flashed
and enrolled in one go by `laterne flash` with the authority at hand; of others nothing is guessed.
"""

from laterne_provisioning import audit

FLASH = "flash"


def note(log: audit.Log, board: str, interpreter: str) -> None:
    """It was flashed, and has this: a version such as 1.28.0."""
    log.append(FLASH, board, {"interpreter": interpreter})


def newest(log: audit.Log) -> dict[str, str]:
    """The version of each board of which it is known."""
    found = {}
    for record in log.of(FLASH):
        version = record.details.get("interpreter")
        if isinstance(version, str):
            found[record.subject] = version
    return found
