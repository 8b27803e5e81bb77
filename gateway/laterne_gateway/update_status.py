"""What the broker and the log are told of a board's update: a hint for campaigns (gateway/README.md, "Updates")."""

import json

from laterne_gateway.clock import rfc3339
from laterne_protocol.update_messages import (
    FAILED,
    IDLE,
    RECEIVING,
    RESCUE,
    STAGED,
    TRIAL,
    WORKING,
    Progress,
)

PHASES = {
    IDLE: "idle",
    RECEIVING: "receiving",
    WORKING: "working",
    STAGED: "staged",
    TRIAL: "trial",
    FAILED: "failed",
    RESCUE: "rescue",
}


def told(said: Progress, share: float | None) -> tuple[object, ...]:
    """What is worth telling; the share comes last."""
    wanted = None if said.wanted is None else said.wanted[0]
    return (
        said.phase,
        said.running,
        said.sequence,
        said.floor,
        said.nonce,
        said.staged,
        said.result,
        wanted,
        share,
    )


def document(said: Progress, share: float | None, heard_ms: int | None) -> bytes:
    """The same as JSON. heard_ms: when the board said so, UTC."""

    def name(digest: bytes | None) -> str | None:
        return None if digest is None else digest.hex()

    return json.dumps(
        {
            "phase": PHASES[said.phase],
            "running": name(said.running),
            "sequence": said.sequence,
            "floor": said.floor,
            "nonce": said.nonce.hex(),
            "staged": name(said.staged),
            "result": None if said.result is None else [said.result[0], said.result[1].hex()],
            "wanted": None if said.wanted is None else said.wanted[0].hex(),
            "share": share,
            "fetching": said.phase == RECEIVING and said.wanted is not None and share is None,
            "heard": None if heard_ms is None else rfc3339(heard_ms),
        }
    ).encode()


def in_words(said: Progress) -> str:
    """The same for the log."""
    release = "a release without a name" if said.running is None else said.running.hex()[:8]
    words = f"{PHASES[said.phase]}, runs {release}, sequence {said.sequence}"
    return words if said.result is None else f"{words}, the last one ended with {said.result[0]}"
