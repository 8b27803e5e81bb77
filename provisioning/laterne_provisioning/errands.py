"""An order's way to a board and its receipt's way back, step by step: orders.py says what, downlink.py carries it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from laterne_provisioning import authority as authorities
from laterne_provisioning import downlink, keys, order_book, orders, out_file, output, roster, subscriber
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.registry import Board, Registry

KNOWN_WITHIN_S = 30.0  # the gateway tells the board with its next question


@dataclass(frozen=True)
class Errand:
    """One command: whom to ask, by which way, how long, and where the next roster goes."""

    board: str
    opened: authorities.Authority
    secrets: keys.Secrets
    broker: subscriber.Broker
    gateway: str | None
    tenant: str | None
    timeout_s: float
    roster: Path | None


def carry_out(errand: Errand, begin: Callable[[orders.Desk], order_book.UnderWay]) -> tuple[Board, str]:
    """All steps from where they are. The board afterwards, and its gateway."""
    downlink.checked(errand.tenant, errand.gateway)
    if errand.roster is not None:
        out_file.require_writable(errand.roster)
    opened = errand.opened
    with opened.registry() as registry, output.progress() as say:
        gateway = errand.gateway or _gateway_of(registry, errand.board)
        tenant = errand.tenant or asyncio.run(downlink.tenant_of(errand.broker, gateway))
        way = downlink.Way(tenant, gateway, errand.board)
        desk = orders.Desk(
            opened,
            registry,
            opened.signing_key("order", errand.secrets),
            opened.signing_key("enrolment", errand.secrets),
            lambda: int(time.time()),
        )
        there = begin(desk)
        try:
            while there.step != order_book.TOLD:
                there = _next(errand, desk, way, there, say)
        except orders.BoardRefuses:
            asyncio.run(downlink.clear(errand.broker, way))
            raise
        _take_away(errand, desk, way, there, say)
        opened.sign_log(desk.enrolment_key)
        if errand.roster is not None:
            _export(errand, registry, gateway, errand.roster)
        orders.finish(desk, there)  # the last: whoever was stopped before gives the same command again
        row = registry.board(errand.board)
        assert row is not None
        return row, gateway


def _next(
    errand: Errand, desk: orders.Desk, way: downlink.Way, there: order_book.UnderWay, say: Callable[[str], None]
) -> order_book.UnderWay:
    board = desk.registry.board(errand.board)
    assert board is not None
    body = asyncio.run(
        downlink.carry(
            errand.broker,
            way,
            there.ordered,
            lambda found: orders.is_receipt(board, there.ordered, found),
            errand.timeout_s,
            say,
        )
    )
    after = orders.take_receipt(desk, there, body)
    if after.step == order_book.GIVEN:
        say(f"{errand.board} has made its next keys; its credential for them is signed")
    return after


def _take_away(
    errand: Errand, desk: orders.Desk, way: downlink.Way, there: order_book.UnderWay, say: Callable[[str], None]
) -> None:
    # The receipt is ours. What is left is for the board, which may forget it, and for the broker, which shall.
    board = desk.registry.board(errand.board)
    assert board is not None
    body = board.receipts[-1].body
    try:
        asyncio.run(
            downlink.carry(
                errand.broker,
                way,
                there.ordered,
                lambda found: found == body,
                min(errand.timeout_s, KNOWN_WITHIN_S),
                say,
                until_noted=True,
            )
        )
    except downlink.Unanswered:
        # Also when a decommissioned board has forgotten everything, and its last answer was lost on the line.
        output.message(f"{errand.board} has not said that it knows that its receipt has arrived; the receipt is here.")
    asyncio.run(downlink.clear(errand.broker, way))


def _gateway_of(registry: Registry, board: str) -> str:
    if registry.board(board) is None:
        raise UsageError(f"{board} is not in the registry: see `laterne board list`.")
    found = roster.gateways_of(registry, board)
    if len(found) == 1:
        return found[0]
    if not found:
        raise OperatorError(
            f"{board} is on no gateway's newest roster: no gateway serves it. Export one with it first."
        )
    raise UsageError(f"{board} is on the rosters of {', '.join(found)}: say with --gateway where it hangs.")


def _export(errand: Errand, registry: Registry, gateway: str, path: Path) -> None:
    listed = roster.newest_boards(registry, gateway)
    if listed is None:
        raise OperatorError(f"{gateway} has no roster yet: `laterne roster export --gateway {gateway}`.")
    enrolled = {board.id for board in registry.boards() if board.state == "enrolled"}
    key = errand.opened.signing_key("roster", errand.secrets)
    wanted = [board for board in listed if board in enrolled]
    if not wanted:
        raise OperatorError(f"No board would be left on the roster of {gateway}: export it by hand.")
    issued = roster.issue(errand.opened, registry, gateway, wanted, key, int(time.time()))
    out_file.write(path, issued.body)
