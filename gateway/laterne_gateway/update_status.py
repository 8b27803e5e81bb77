"""What the broker and the log are told of a board's update: a hint for campaigns (gateway/README.md, "Updates").

Whatever changes is told at once, but a share that has grown, and how the board's line does.
"""

import json
from dataclasses import dataclass

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

SHARE_AGAIN_S = 10.0  # how often a share that has grown is worth a message
LINK_AGAIN_S = 300.0  # how soon after other news its line is; then after twice as long each time, nine times a day
PHASES = {
    IDLE: "idle",
    RECEIVING: "receiving",
    WORKING: "working",
    STAGED: "staged",
    TRIAL: "trial",
    FAILED: "failed",
    RESCUE: "rescue",
}


@dataclass
class Told:
    """What the broker was told last of a board. at_s: when. changed_s: when something else than share or link was news.

    A link is (questions asked, of these repeated or not answered), since this process has met the board.
    """

    facts: tuple[object, ...] = ()
    share: float | None = None
    link: tuple[int, int] | None = None
    at_s: float = 0.0
    changed_s: float = 0.0

    def due_in_s(self, said: Progress, share: float | None, link: tuple[int, int] | None, now_s: float) -> float | None:
        """When the broker is to be told again, 0 or less for now; None: there is nothing new."""
        if self.facts != _facts(said):
            return 0.0
        if self.share != share:
            return self.at_s + SHARE_AGAIN_S - now_s
        if self.link == link:
            return None
        return self.at_s + max(LINK_AGAIN_S, self.at_s - self.changed_s) - now_s

    def document(
        self, said: Progress, share: float | None, link: tuple[int, int] | None, heard_ms: int | None, now_s: float
    ) -> bytes:
        """What it is told now, JSON. heard_ms: when the board said so, UTC."""
        if self.facts != _facts(said):
            self.changed_s = now_s
        self.facts, self.share, self.link, self.at_s = _facts(said), share, link, now_s
        return json.dumps(
            {
                "phase": PHASES[said.phase],
                "running": _name(said.running),
                "sequence": said.sequence,
                "floor": said.floor,
                "nonce": said.nonce.hex(),
                "staged": _name(said.staged),
                "result": None if said.result is None else [said.result[0], said.result[1].hex()],
                "wanted": None if said.wanted is None else said.wanted[0].hex(),
                "share": share,
                "fetching": said.phase == RECEIVING and said.wanted is not None and share is None,
                "link": link,
                "heard": None if heard_ms is None else rfc3339(heard_ms),
            }
        ).encode()


def _facts(said: Progress) -> tuple[object, ...]:
    wanted = None if said.wanted is None else said.wanted[0]
    return said.phase, said.running, said.sequence, said.floor, said.nonce, said.staged, said.result, wanted


def _name(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def in_words(said: Progress) -> str:
    """How far it is, for the log."""
    release = "a release without a name" if said.running is None else said.running.hex()[:8]
    words = f"{PHASES[said.phase]}, runs {release}, sequence {said.sequence}"
    return words if said.result is None else f"{words}, the last one ended with {said.result[0]}"
